package aftercare

import (
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/health/systemd/systemdtest"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

func TestObserve(t *testing.T) {
	nothing := difference.Compare(tree.NewDir(0o755), tree.NewDir(0o755))
	scan := Scan{View: View{Root: "/"}}
	o, err := Observe(t.Context(), systemd.Manager{Run: t.TempDir()}, scan, nothing, nil)
	if err != nil || o.Systemd || len(o.Units)+len(o.Processes) != 0 {
		t.Errorf("without systemd: %+v, %v", o, err)
	}
	run := t.TempDir()
	f := &systemdtest.Fake{Properties: map[string]map[string]any{"web.service": {"ActiveState": "active", "SubState": "running"}}}
	f.Start(t, run)
	if o, err = Observe(t.Context(), systemd.Manager{Run: run}, scan, nothing, nil); err != nil || !o.Systemd || len(o.Units) != 1 {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestContents(t *testing.T) {
	st, err := store.Open(t.TempDir(), store.Options{})
	must(t, err)
	defer st.Close()
	text := strings.Repeat("long ", 100)
	w, err := st.NewObject(0)
	must(t, err)
	_, err = w.Write([]byte(text))
	must(t, err)
	digest, _, err := w.Commit()
	must(t, err)
	read := Contents(st)
	for _, c := range []struct {
		name string
		n    *tree.Node
		want string
	}{
		{"in the image", &tree.Node{Kind: tree.Regular, Size: 1, Inline: []byte("x")}, "x"},
		{"empty", &tree.Node{Kind: tree.Regular}, ""},
		{"an object", &tree.Node{Kind: tree.Regular, Size: uint64(len(text)), Digest: digest}, text},
	} {
		if got, err := read(c.n); err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
	for name, n := range map[string]*tree.Node{
		"missing": {Kind: tree.Regular, Size: 1000, Digest: fsverity.Digest{1}}, "too large": {Kind: tree.Regular, Size: contentMax + 1, Digest: digest},
	} {
		if _, err := read(n); err == nil {
			t.Errorf("%s: it was read", name)
		}
	}
}

func TestUnreadableUnitCountsAsChanged(t *testing.T) {
	unread := func(*tree.Node) ([]byte, error) { return nil, errUnread }
	p := plan(t, web, web.with(files{webUnit: webText + "#"}), func(in *Input) {
		in.Units = []systemd.LoadedUnit{runs("web.service", "/usr/sbin/web", nil)}
		for _, root := range []*tree.Node{in.From, in.To} {
			n := root.Lookup(webUnit)
			n.Inline, n.Digest = nil, fsverity.Digest{1}
		}
		in.Read = unread
	})
	if len(p.Restart) != 1 {
		t.Errorf("%+v", p)
	}
}

func TestUnitThatGoesAwayAndMayNot(t *testing.T) {
	const unit = "/usr/lib/systemd/system/systemd-udevd.service"
	p := plan(t, base.with(files{unit: "[Service]\n"}), base, func(in *Input) {
		in.Units = []systemd.LoadedUnit{runs("systemd-udevd.service", "/usr/lib/systemd/systemd-udevd", nil)}
	})
	if len(p.Stop) != 0 || len(p.Later) != 1 || !strings.Contains(p.Later[0].Because[0], "events of devices would be lost") {
		t.Errorf("%+v", p)
	}
}
