package live

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/rootfs"
)

// keptFiles are a root image in which all that a change over it can refer to is another version's own.
func keptFiles(v string) map[string]string {
	return map[string]string{
		"usr/mode": big + v, "usr/same": big, "usr/later": big + v, "usr/w": "w" + v, "opt/dir/f": big + v, "opt/dir/sub/g": "g" + v, "opt/dir/gone": v,
		"opt/two/f": big + v, "etc/version": v, "srv-" + v + "/file": v, "link-" + v: "-> usr",
	}
}

// onDisk has a root keep its writable layer.
func onDisk(s *rootfs.Spec) { s.Upper.Kind = rootfs.OnPersist }

// kept boots a root over the layer that the disk has for it.
func (n *node) kept(side Side, change ...func(*rootfs.Spec)) {
	n.Helper()
	n.shutDown()
	n.boot(side, func(s *rootfs.Spec) {
		onDisk(s)
		s.Remark = func(text, _ string) { n.remarks = append(n.remarks, text) }
		for _, c := range change {
			c(s)
		}
	})
}

// settle is what package change does before a swap.
func (n *node) settle(from, to Side, hook durable.Hook) error {
	n.Helper()
	a, err := n.read(from.RootDigest)
	must(n, err)
	b, err := n.read(to.RootDigest)
	must(n, err)
	found, err := OpenUpper(n.place())
	must(n, err)
	defer found.Close()
	upper, err := durable.OpenDir(found.Name(), hook)
	must(n, err)
	defer upper.Close()
	troubles, err := delta.Live{Upper: upper, View: n.view}.Settle(n.Context(), a, b, nil, nil)
	if len(troubles) > 0 {
		n.Errorf("troubles %v", troubles)
	}
	return err
}

func (n *node) view(top string) (*os.File, error) {
	dir, err := os.Open(n.in(top))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	c, err := mount.Clone(dir, false)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.OpenDir()
}

// changed are the changes of a person over a version, and what they mean.
func (n *node) changed(v string) map[string]string {
	n.Helper()
	must(n, errors.Join(os.Chmod(n.in("usr/mode"), 0o600), os.Chmod(n.in("usr/same"), 0o600)))
	n.write("usr/w", "mine")
	n.write("usr/mine", "mine")
	must(n, errors.Join(os.Rename(n.in("opt/dir"), n.in("opt/renamed")), os.Remove(n.in("opt/renamed/gone"))))
	return map[string]string{
		"usr/mode": big + v, "usr/same": big, "usr/w": "mine", "usr/mine": "mine", "opt/dir": "", "opt/renamed/f": big + v,
		"opt/renamed/sub/g": "g" + v, "opt/renamed/gone": "",
	}
}

func (n *node) layers() []string {
	n.Helper()
	entries, err := os.ReadDir(filepath.Join(n.store.Path(), "upper"))
	must(n, err)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (n *node) noRemarks() {
	n.Helper()
	if len(n.remarks) > 0 {
		n.Errorf("remarks %q", n.remarks)
	}
	n.remarks = nil
}

// TestKeptLayerGoesAlong changes things over a, goes live to b, changes more, and boots: b and back to a have all
// of it, each time. Another root has a layer of its own.
func TestKeptLayerGoesAlong(t *testing.T) {
	n := newNode(t)
	a, b, c := n.files(keptFiles("a")), n.files(keptFiles("b")), n.files(keptFiles("c"))
	n.kept(b) // b has been booted before, and has a layer with other changes
	n.write("usr/mine", "of old")
	n.kept(a)
	want := n.changed("a")
	must(t, n.settle(a, b, nil))
	n.swap(a, b)
	n.wantContent(want)
	// Over b, with its content.
	must(t, errors.Join(os.Chmod(n.in("usr/later"), 0o600), os.Rename(n.in("opt/two"), n.in("opt/second")), os.Mkdir(n.in("srv-b/mine"), 0o755)))
	want["usr/later"], want["opt/second/f"], want["opt/two"] = big+"b", big+"b", ""
	n.wantContent(want)

	for _, s := range []Side{b, b, a, a, b} {
		n.kept(s)
		n.noRemarks()
		n.wantContent(want)
		v := string("abc"[s.Generation-1])
		n.wantContent(map[string]string{"etc/version": v, "srv-" + v + "/file": v})
		if got, err := os.Readlink(n.in("link-" + v)); got != "usr" {
			t.Errorf("link-%s leads to %q, %v", v, got, err)
		}
	}
	// By a live change back, and another one.
	must(t, n.settle(b, a, nil))
	n.swap(b, a)
	n.wantContent(want)
	n.kept(a)
	n.wantContent(want)

	n.kept(c)
	n.wantContent(map[string]string{"usr/mine": "", "usr/w": "wc", "usr/mode": big + "c", "opt/dir/f": big + "c"})
	n.kept(a)
	n.wantContent(want)
	n.noRemarks()
	if got := n.layers(); len(got) != 3 {
		t.Errorf("layers %q", got)
	}
	n.shutDown()
	keep := map[fsverity.Digest]struct{}{b.RootDigest: {}}
	if got, err := rootfs.BeneathUppers(n.store.Path()); err != nil || len(got) != 1 || len(got[b.RootDigest]) != 1 || got[b.RootDigest][0] != a.RootDigest {
		t.Errorf("beneath b's layer are %v, %v", got, err)
	}
	// b's own layer, which was set aside, goes with it; c's is of no use any more.
	if pruned, err := rootfs.PruneUppers(n.store.Path(), keep, nil); err != nil || pruned != 1 {
		t.Errorf("pruned %d, %v", pruned, err)
	}
	n.kept(b)
	n.wantContent(want)
	n.shutDown()
	if pruned, err := rootfs.PruneUppers(n.store.Path(), map[fsverity.Digest]struct{}{c.RootDigest: {}}, nil); err != nil || pruned != 2 {
		t.Errorf("pruned %d, %v", pruned, err)
	}
}

// TestTakenBackLayer undoes a change: the boots of the new root go on with the layer that they had.
func TestTakenBackLayer(t *testing.T) {
	n := newNode(t)
	a, b := n.files(keptFiles("a")), n.files(keptFiles("b"))
	n.kept(a)
	want := n.changed("a")
	must(t, n.settle(a, b, nil))
	_, err := Swap(t.Context(), n.spec(a, b))
	must(t, err)
	must(t, os.Chmod(n.in("usr/later"), 0o600)) // refers to b
	_, err = Undo(t.Context(), n.place())
	must(t, err)
	n.wantContent(want)
	n.kept(b)
	n.wantContent(map[string]string{"usr/mine": "", "usr/w": "wb"})
	n.kept(a)
	n.noRemarks()
	n.wantContent(want)
	if got := n.content("usr/later"); n.level == mount.Enforced && got != big+"b" || n.level != mount.Enforced && got != big+"a" {
		t.Errorf("what was changed before the change was taken back reads %.40q", got)
	}
}

// TestOldImageIsGone has nothing to settle by: the boot begins with an empty layer, and says where the old one is.
func TestOldImageIsGone(t *testing.T) {
	n := newNode(t)
	a, b := n.files(keptFiles("a")), n.files(keptFiles("b"))
	n.kept(a)
	n.changed("a")
	must(t, n.settle(a, b, nil))
	n.swap(a, b)
	n.shutDown()
	must(t, os.Remove(filepath.Join(n.store.ObjectsPath(), b.RootDigest.ObjectPath())))
	for i := range 2 {
		n.kept(a)
		if i == 0 && (len(n.remarks) != 1 || !strings.Contains(n.remarks[0], "isn't here any more") || !strings.Contains(n.remarks[0], a.RootDigest.String())) {
			t.Errorf("remarks %q", n.remarks)
		}
		if i == 1 {
			n.wantContent(map[string]string{"usr/mine": "of now"})
		} else {
			n.wantContent(map[string]string{"usr/mine": "", "usr/mode": big + "a"})
			n.write("usr/mine", "of now")
			n.remarks = nil
		}
	}
	n.noRemarks()
	layers := n.layers()
	if len(layers) != 2 || !strings.HasSuffix(layers[1], ".2") {
		t.Errorf("layers %q", layers)
	}
	if got, err := os.ReadFile(filepath.Join(n.store.Path(), "upper", layers[0], "upper/usr/mine")); string(got) != "mine" {
		t.Errorf("aside is %q, %v", got, err)
	}
}

// TestDamagedRecord: nobody knows what the layer lay over.
func TestDamagedRecord(t *testing.T) {
	n := newNode(t)
	a, b := n.files(keptFiles("a")), n.files(keptFiles("b"))
	n.kept(a)
	n.changed("a")
	must(t, n.settle(a, b, nil))
	n.swap(a, b)
	n.shutDown()
	record := filepath.Join(n.store.Path(), "upper", n.layers()[0], "record.json")
	must(t, os.WriteFile(record, []byte("{"), 0o600))
	n.kept(b)
	if len(n.remarks) != 1 || !strings.Contains(n.remarks[0], "stays aside") {
		t.Errorf("remarks %q", n.remarks)
	}
	n.wantContent(map[string]string{"usr/mine": "", "usr/mode": big + "b"})
	n.shutDown()
	if pruned, err := rootfs.PruneUppers(n.store.Path(), nil, nil); err != nil || pruned != 1 {
		t.Errorf("pruned %d, %v: what is damaged stays", pruned, err)
	}
}

// TestSoftRebootToTheSameLayer: what would have to be settled isn't, while it is in use.
func TestSoftRebootToTheSameLayer(t *testing.T) {
	n := newNode(t)
	a, b := n.files(keptFiles("a")), n.files(keptFiles("b"))
	n.kept(a)
	must(t, n.settle(a, b, nil))
	n.swap(a, b)
	next := func(side Side) error {
		scratch := filepath.Join(n.run, "next")
		must(t, os.MkdirAll(scratch, 0o700))
		r, err := rootfs.Make(t.Context(), rootfs.Spec{
			At: filepath.Join(n.run, "nextroot"), Scratch: scratch, Store: n.store, RootDigest: side.RootDigest, Level: n.level, Beside: true,
			Persist: filepath.Join(n.dir, "persist"), Upper: rootfs.Upper{Kind: rootfs.OnPersist},
		})
		if err == nil {
			r.Unmake()
		}
		return err
	}
	if err := next(a); err == nil || !strings.Contains(err.Error(), "belongs to both roots") {
		t.Errorf("got %v", err)
	}
	if err := next(b); err != nil {
		t.Error(err)
	}
	n.write("usr/mine", "mine")
	if err := unix.Access(n.in("usr/mine"), unix.R_OK); err != nil {
		t.Error(err)
	}
}
