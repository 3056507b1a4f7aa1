package agentcli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/runtime"
	"github.com/powernode/powernode-agent/internal/runtime/metrics"
)

// TestMetrics: every metric is in docs/service.md, and none goes where another machine can read it.
func TestMetrics(t *testing.T) {
	s := &assembled{platform: &nodePlatform{keeper: enroll.NewKeeper(enroll.Options{Dir: t.TempDir()})}, work: &platformWork{
		tasks: runtime.NewTasks(runtime.TasksConfig{}), reconcile: runtime.NewReconcile(runtime.ReconcileConfig{}),
	}}
	s.work.service.Store(runtime.New(runtime.Config{}))
	var text strings.Builder
	if err := metrics.Write(&text, s.metrics()); err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile(filepath.Join(oracle.Root(t), "docs", "service.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range s.metrics() {
		short := strings.TrimPrefix(m.Name, "powernode_agent_")
		if !strings.Contains(string(docs), short+"`") {
			t.Errorf("docs/service.md lacks %s", m.Name)
		}
		if seen[m.Name] {
			t.Errorf("%s twice", m.Name)
		}
		seen[m.Name] = true
	}
	if len(seen) < 12 || !strings.Contains(text.String(), "powernode_agent_tasks_running 0\n") {
		t.Error(text.String())
	}
	for _, f := range []metricsFlags{{listen: "0.0.0.0:1"}, {listen: "unix:x"}, {textfile: "x.prom"}, {textfile: "/etc/passwd"}} {
		if loops, err := f.loops(s); err == nil {
			t.Errorf("%+v: %v", f, loops)
		}
	}
	if loops, err := (metricsFlags{}).loops(s); err != nil || len(loops) != 0 {
		t.Errorf("off: %v, %v", loops, err)
	}
}

// TestOneService: a second one says which process has the node.
func TestOneService(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockService(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockService(dir, nil); err == nil || !strings.Contains(err.Error(), "one agent serves a node") {
		t.Errorf("a second one: %v", err)
	}
	unlock()
	unlock, err = lockService(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	if _, err := lockService(filepath.Join(dir, "none"), nil); err != nil {
		t.Errorf("nothing there: %v", err)
	}
}
