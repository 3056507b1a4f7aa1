package change

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/internal/store"
)

// onASmallDisk has the node's store go on on a disk that has no room for pulls.
func (n *node) onASmallDisk() {
	n.t.Helper()
	mounttest.NeedMounts(n.t)
	disk := n.t.TempDir()
	if err := unix.Mount("small", disk, "tmpfs", 0, "size=8m"); err != nil {
		n.t.Fatal(err)
	}
	at := filepath.Join(disk, "store")
	err := os.CopyFS(at, os.DirFS(n.store.Path()))
	if err == nil {
		n.store.Close()
		n.store, err = store.Open(at, store.Options{})
	}
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		n.store.Close()
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			n.t.Error(err)
		}
	})
}

// TestNoRoom: a pull that doesn't fit is refused, and the dry run of it says so, with its plan and with what to do.
func TestNoRoom(t *testing.T) {
	n := three(t)
	n.onASmallDisk()
	n.module("app", "2", map[string]string{"usr/app": long("app2")})
	_, err := n.do(Request{Kind: Update})
	if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Mount || !strings.Contains(err.Error(), "are missing") {
		t.Errorf("the change: %v", err)
	}
	n.is("refused", 1, "app 1, base 1, site 1")
	dry, err := n.do(Request{Kind: Update, DryRun: true})
	if err != nil || dry.Plan == nil || changes(dry) != "changed app 1 2" {
		t.Fatalf("the dry run: %+v, %v", dry, err)
	}
	if said := strings.Join(dry.Remarks, "\n"); !strings.Contains(said, "the change would be refused: pull app") || !strings.Contains(said, "are missing; free space on") {
		t.Errorf("the dry run says %q", said)
	}
}
