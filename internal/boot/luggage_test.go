package boot

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/change"
)

// TestLateRemarks: what is remarked after the packing is in the facts all the same.
func TestLateRemarks(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, RunDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	agent := filepath.Join(root, "agent")
	if err := os.WriteFile(agent, []byte("the agent"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(agent)
	if err != nil {
		t.Fatal(err)
	}
	l := &luggage{agent: f, facts: Facts{Generation: 3}, assigned: &change.Last{At: time.Now(), Assigned: []change.LastModule{{Name: "app", Version: "2"}}}}
	defer l.close()
	if err := l.unpack(dir); err != nil {
		t.Fatal(err)
	}
	l.facts.Remarks = []string{"there is no guard"}
	if err := l.unpackFacts(dir); err != nil {
		t.Fatal(err)
	}
	facts, err := ReadFacts(root)
	if err != nil || facts.Generation != 3 || len(facts.Remarks) != 1 {
		t.Errorf("%+v, %v", facts, err)
	}
	if last, ok, err := change.ReadLast(dir); err != nil || !ok || len(last.Assigned) != 1 || last.Assigned[0].Version != "2" {
		t.Errorf("what was assigned: %+v, %t, %v", last, ok, err)
	}
	if got, err := os.ReadFile(filepath.Join(root, AgentPath)); string(got) != "the agent" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
