package agentcli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/retain"
)

// TestAtHome: who sees another mount than the machine's, changes nothing of what runs; another store is no matter of what runs.
func TestAtHome(t *testing.T) {
	n := newANode(t, pastOf(t, 3), 3)
	if err := os.Symlink("/proc", filepath.Join(n.root, "proc")); err != nil {
		t.Fatal(err)
	}
	id := n.mounted()
	if err := atHome(n.root, n.state); err != nil {
		t.Errorf("at the mount of the boot: %v", err)
	}
	id.Mount, id.Unique = id.Mount+1_000_000, id.Unique+1_000_000 // as in a copy of the namespace
	n.put(boot.FactsName, map[string]any{"generation": 3, "state_dir": n.state, "mount": id})
	_, collected := gc(t.Context(), n.root, n.state, retain.Options{Now: time.Now(), Newest: 1}, false)
	for what, err := range map[string]error{"a change": atHome(n.root, n.state), "gc": collected} {
		if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Mount || !strings.Contains(err.Error(), "mount namespace of its own") || !strings.Contains(fault.HintOf(err), "nsenter --target 1 --mount") {
			t.Errorf("%s at another mount: %v", what, err)
		}
	}
	if _, err := gc(t.Context(), n.root, n.state, retain.Options{Now: time.Now(), Newest: 1}, true); err != nil {
		t.Errorf("what is only looked at: %v", err)
	}
	n.put(boot.FactsName, map[string]any{"generation": 3, "state_dir": n.state, "mount": mount.ID{}})
	if err := atHome(n.root, n.state); err == nil {
		t.Error("facts without a mount prove nothing")
	}
	for what, err := range map[string]error{"another store": atHome(n.root, t.TempDir()), "no boot of this agent": atHome(t.TempDir(), n.state)} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}
