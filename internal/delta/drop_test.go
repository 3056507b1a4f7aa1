package delta

import (
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/powernode/powernode-agent/internal/durable"
)

// TestDrop replaces local changes by the new image's files under running unions.
func TestDrop(t *testing.T) {
	n := newNode(t)
	from := n.image("etc/x", "old", "etc/gone", "gone", "etc/d/f", big("f"), "etc/stays", "s")
	to := n.image("etc/x", "new", "etc/gone", "new", "etc/d/f", big("g"), "etc/stays", "s", "etc/was-file/in", "in")
	m := n.mount(from)
	m.write("etc/x", "mine")
	m.remove("etc/gone")
	m.chmod("etc/d/f", 0o600)
	m.write("etc/was-file", "mine")
	m.write("etc/stays", "mine")
	held, err := os.OpenFile(m.path("etc/x"), os.O_RDWR|os.O_APPEND, 0)
	must(t, err)
	defer held.Close()
	local := map[string]string{"etc/x": "mine", "etc/gone": "", "etc/d/f": big("f"), "etc/was-file": "mine", "etc/stays": "mine"}
	m.check("local changes", local)

	var paths []string
	for _, c := range Conflicts(n.scan(), from.tree, to.tree) {
		paths = append(paths, c.Path)
	}
	if want := []string{"/etc/d/f", "/etc/gone", "/etc/was-file", "/etc/x"}; !slices.Equal(paths, want) {
		t.Fatalf("conflicts at %q, want %q", paths, want)
	}
	p := Settle(n.scan(), from.tree, to.tree, func(path string) bool { return slices.Contains(paths, path) })
	if len(p.Steps) != 0 {
		t.Errorf("what is dropped is settled: %v", p.Steps)
	}
	upper, aside := n.upper(nil), n.open("aside", nil)

	must(t, Drop(t.Context(), upper, aside, paths))
	if err := Drop(t.Context(), upper, aside, paths); err == nil {
		t.Error("dropped twice over one list")
	}
	must(t, Restore(upper, aside))
	must(t, Restore(upper, aside))
	over := n.mount(from)
	over.check("put back", local)
	over.unmount()

	over = n.mount(to)
	must(t, Drop(t.Context(), upper, aside, append(paths, "/etc/d/none", "/none/at/all")))
	replaced := map[string]string{"etc/x": "new", "etc/gone": "new", "etc/d/f": big("g"), "etc/was-file": "/in", "etc/stays": "mine"}
	over.check("replaced", replaced)
	if _, err := held.WriteString(" more"); err != nil {
		t.Errorf("who has the old file open: %v", err)
	}
	got, err := io.ReadAll(io.NewSectionReader(held, 0, 100))
	if err != nil || string(got) != "mine more" {
		t.Errorf("who has the old file open reads %q, %v", got, err)
	}
	must(t, Discard(aside))
	must(t, Discard(aside))
	must(t, Restore(upper, aside))
	over.check("for good", replaced)
	names, err := aside.Names()
	if err != nil || len(names) != 0 {
		t.Errorf("left aside: %q, %v", names, err)
	}
	for _, path := range []string{"etc", "/", "/etc/../x", ""} {
		if err := Drop(t.Context(), upper, aside, []string{path}); err == nil {
			t.Errorf("dropped %q", path)
		}
	}
}

// TestDropAfterADiscardThatWasCutOff: what a kill left aside is nobody's any more: it neither stands in the way of what is dropped
// next, nor comes back in its place.
func TestDropAfterADiscardThatWasCutOff(t *testing.T) {
	dir := t.TempDir()
	open := func(name string, hook durable.Hook) *durable.Dir {
		t.Helper()
		must(t, os.MkdirAll(dir+"/"+name, 0o700))
		d, err := durable.OpenDir(dir+"/"+name, hook)
		must(t, err)
		t.Cleanup(func() { d.Close() })
		return d
	}
	upper := open("upper", nil)
	write := func(name, text string) { must(t, os.WriteFile(dir+"/upper/"+name, []byte(text), 0o600)) }
	write("a", "a")
	write("b", "b")
	must(t, Drop(t.Context(), upper, open("aside", nil), []string{"/a", "/b"}))
	killed := errors.New("killed")
	err := Discard(open("aside", func(op string) error {
		if op == "drop-discard:remove" {
			return killed
		}
		return nil
	}))
	if !errors.Is(err, killed) {
		t.Fatal(err)
	}
	write("c", "c")
	aside := open("aside", nil)
	must(t, Drop(t.Context(), upper, aside, []string{"/c", "/d"}))
	must(t, Restore(upper, aside))
	names, err := upper.Names()
	if err != nil || len(names) != 1 || names[0] != "c" {
		t.Errorf("%q, %v", names, err)
	}
	if names, err := aside.Names(); err != nil || len(names) != 0 {
		t.Errorf("left aside: %q, %v", names, err)
	}
}
