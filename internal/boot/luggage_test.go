package boot

import (
	"os"
	"path/filepath"
	"testing"
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
	l := &luggage{agent: f, facts: Facts{Generation: 3}}
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
	if got, err := os.ReadFile(filepath.Join(root, AgentPath)); string(got) != "the agent" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
