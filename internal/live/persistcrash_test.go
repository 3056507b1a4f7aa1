package live

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// keptScenario goes live from the first generation to the second over a layer on the disk, which a person has changed and changes
// while it works. After a fault the machine starts with the generation that is current.
func keptScenario(reset bool) durabletest.Scenario {
	nodes := make(map[string]*node)
	wants := make(map[string]map[string]string)
	return durabletest.Scenario{
		Setup: func(t testing.TB, dir string) {
			n := nodeIn(t, dir)
			nodes[dir] = n
			files := keptFiles("a")
			files["usr/early"] = big + "a"
			a := n.files(files)
			files = keptFiles("b")
			files["usr/early"] = big + "b"
			n.files(files)
			n.kept(a)
			wants[""] = n.changed("a")
		},
		Run: keptRun,
		Check: func(t testing.TB, dir, op string, err error) {
			var n *node
			if reset { // the disk alone is left
				n = nodeIn(t, dir)
			} else {
				n = nodes[dir]
				n.TB = t
			}
			current, v := n.side(1), "a"
			if _, err := os.Stat(filepath.Join(dir, "current")); err == nil {
				current, v = n.side(2), "b"
			}
			if !reset && Recoverable(n.run) {
				_, _, err := Recover(context.Background(), n.place(), current.Generation)
				must(t, err)
				n.whole(current)
			}
			for _, s := range []Side{current, n.side(3 - int(current.Generation)), current} {
				if s != current && v == "a" {
					continue // the other one was never current, and has a layer of its own
				}
				n.remarks = nil
				n.kept(s)
				n.noRemarks()
				n.wantContent(wants[""])
				for _, path := range []string{"usr/early", "usr/later", "opt/second/f"} {
					if got := n.content(path); got != big+"a" && got != big+"b" && (path != "opt/second/f" || !strings.Contains(got, "no such file")) {
						t.Errorf("stopped at %q, generation %d: %s reads %.60q", op, s.Generation, path, got)
					}
				}
			}
			if op == "" || v == "b" {
				n.wantContent(map[string]string{"usr/later": big + "b", "opt/second/f": big + "b"})
			}
			if n.level == mount.Enforced && (op == "" || v == "b") {
				n.wantContent(map[string]string{"usr/early": big + "a"}) // changed over a, when it was settled already
			}
			n.shutDown()
		},
	}
}

// keptRun is the change, with a person at work in the moments in which it isn't settled.
func keptRun(dir string, hook durable.Hook) error {
	st, err := store.Open(filepath.Join(dir, "persist/state"), store.Options{})
	if err != nil {
		return err
	}
	defer st.Close()
	n := &node{dir: dir, store: st, root: filepath.Join(dir, "run/root"), run: filepath.Join(dir, "run"), trees: make(map[fsverity.Digest]*tree.Node)}
	var seen []string
	person := func(op string) error {
		seen = append(seen, op)
		is := func(prefix string) bool { return strings.HasPrefix(op, prefix) }
		first := slices.IndexFunc(seen, func(o string) bool { return strings.HasPrefix(o, "live-scratch:unmount") })
		var err error
		switch {
		case is("live-scratch:mount"):
			err = os.Chmod(n.in("usr/early"), 0o600) // over the old image
		case is("layer-record") && first >= 0 && !slices.ContainsFunc(seen[first:len(seen)-1], func(o string) bool { return strings.HasPrefix(o, "layer-record") }):
			// Over the new one, which nothing says yet.
			err = errors.Join(os.Chmod(n.in("usr/later"), 0o600), os.Rename(n.in("opt/two"), n.in("opt/second")))
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		return hook(op)
	}
	return n.goLive(person)
}

func (n *node) goLive(hook durable.Hook) error {
	generations, err := n.store.Generations()
	if err != nil {
		return err
	}
	for _, g := range generations {
		n.digests = append(n.digests, g.RootDigest)
	}
	a, err := n.read(n.digests[0])
	if err != nil {
		return err
	}
	b, err := n.read(n.digests[1])
	if err != nil {
		return err
	}
	place := n.place()
	place.Hook = hook
	found, err := OpenUpper(place)
	if err != nil {
		return err
	}
	defer found.Close()
	upper, err := durable.OpenDir(found.Name(), hook)
	if err != nil {
		return err
	}
	defer upper.Close()
	troubles, err := delta.Live{Upper: upper, View: n.view}.Settle(context.Background(), a, b, nil, nil)
	if err == nil && len(troubles) > 0 {
		err = errors.New(troubles[0].Why)
	}
	if err != nil {
		return err
	}
	_, err = Swap(context.Background(), Spec{Place: place, From: n.side(1), To: n.side(2), Changes: Changes(difference.Compare(a, b).Top)})
	if err != nil {
		return err
	}
	dir, err := durable.OpenDir(n.dir, hook)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.WriteFile("current", nil, 0o600, "current"); err != nil {
		if _, there := os.Stat(filepath.Join(n.dir, "current")); there == nil {
			return errors.Join(err, Finish(n.run, nil))
		}
		_, back := Undo(context.Background(), place)
		return errors.Join(err, back)
	}
	return Finish(n.run, hook)
}

func TestKeptLayerSurvivesPowerCuts(t *testing.T) {
	mounttest.NeedMounts(t)
	keptScenario(true).PowerCutEach(t)
}

func TestKeptLayerSurvivesFaults(t *testing.T) {
	mounttest.NeedMounts(t)
	keptScenario(false).FailEach(t, unix.EIO)
}

func TestKeptLayerSurvivesKills(t *testing.T) {
	mounttest.NeedMounts(t)
	keptScenario(false).KillEach(t)
}
