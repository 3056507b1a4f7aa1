package live

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// crashScenario changes the second generation for the third, with everything that can be in the way;
// then the third becomes the current one. The second went live over the first, or was booted.
func crashScenario(booted bool) durabletest.Scenario {
	nodes := make(map[string]*node)
	return durabletest.Scenario{
		Setup: func(t testing.TB, dir string) {
			n := nodeIn(t, dir)
			nodes[dir] = n
			a, b := n.files(versionFiles("a")), n.files(versionFiles("b"))
			n.files(versionFiles("c"))
			root := a
			if booted {
				root = b
			}
			n.boot(root, func(s *rootfs.Spec) { s.Etc = rootfs.Persistent })
			must(t, unix.Mount("sub", n.in("usr/share"), "tmpfs", 0, ""))
			must(t, os.Mkdir(n.in("usr/share/nested"), 0o755))
			must(t, unix.Mount("nested", n.in("usr/share/nested"), "tmpfs", 0, ""))
			n.write("usr/share/inside", "submount")
			n.write("usr/share/nested/inside", "nested")
			if !booted {
				n.swap(a, b)
			}
			n.write("usr/mine", "mine")
		},
		Run: crashSwap,
		Check: func(t testing.TB, dir, op string, err error) {
			n := nodes[dir]
			n.TB = t
			current, want := n.side(2), n.side(2)
			if _, err := os.Stat(filepath.Join(dir, "current")); err == nil {
				current, want = n.side(3), n.side(3)
			}
			if Recoverable(n.run) && (err == nil || strings.HasPrefix(op, "live-end")) {
				_, _, err := Recover(context.Background(), n.place(), current.Generation)
				must(t, err)
			}
			if Recoverable(n.run) {
				t.Errorf("after a fault at %q there is a journal", op)
			}
			n.whole(want)
			n.litterFree()
			v := string("abc"[want.Generation-1])
			n.wantContent(map[string]string{
				"usr/version": v, "etc/version": v, "usr/share/inside": "submount", "usr/share/nested/inside": "nested", "usr/mine": "mine",
				"srv-" + v + "/file": v, "link-" + v + "/version": v,
			})
			n.write("usr/later", v)
			n.write("etc/later", v)
			n.swap(want, n.side(1))
			n.wantContent(map[string]string{"usr/later": v, "etc/later": v, "usr/version": "a", "usr/share/inside": "submount"})
			n.shutDown()
		},
	}
}

func crashSwap(dir string, hook durable.Hook) error {
	st, err := store.Open(filepath.Join(dir, "persist/state"), store.Options{})
	if err != nil {
		return err
	}
	defer st.Close()
	n := &node{dir: dir, store: st, root: filepath.Join(dir, "run/root"), run: filepath.Join(dir, "run"), trees: make(map[fsverity.Digest]*tree.Node)}
	a, err := n.crashSpec(hook)
	if err != nil {
		return err
	}
	if _, err := Swap(context.Background(), a); err != nil {
		return err
	}
	if err := hook("current"); err != nil {
		_, back := Undo(context.Background(), a.Place)
		return errors.Join(err, back)
	}
	if err := os.WriteFile(filepath.Join(dir, "current"), nil, 0o600); err != nil {
		return err
	}
	return Finish(n.run, hook)
}

func (n *node) crashSpec(hook durable.Hook) (Spec, error) {
	generations, err := n.store.Generations()
	if err != nil {
		return Spec{}, err
	}
	for _, g := range generations {
		n.digests = append(n.digests, g.RootDigest)
	}
	b, err := n.read(n.digests[1])
	if err != nil {
		return Spec{}, err
	}
	c, err := n.read(n.digests[2])
	if err != nil {
		return Spec{}, err
	}
	place := n.place()
	place.Hook = hook
	return Spec{Place: place, From: n.side(2), To: n.side(3), Changes: Changes(difference.Compare(b, c).Top)}, nil
}

func TestFaults(t *testing.T) {
	mounttest.NeedMounts(t)
	t.Run("live", func(t *testing.T) { crashScenario(false).FailEach(t, unix.EIO) })
	t.Run("booted", func(t *testing.T) { crashScenario(true).FailEach(t, unix.EIO) })
}

func TestKills(t *testing.T) {
	mounttest.NeedMounts(t)
	crashScenario(false).KillEach(t)
}

func TestKillsOfTheFirst(t *testing.T) {
	mounttest.NeedMounts(t)
	crashScenario(true).KillEach(t)
}
