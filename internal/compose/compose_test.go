package compose

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/tree"
)

// build makes a tree from lines: "path/" a directory, "path" a file that holds its own name,
// "path=text" a file, "path>target" a symlink, "path&other" a hard link to an earlier path. After
// a space: an octal mode.
func build(lines ...string) *tree.Node {
	root := tree.NewDir(0o755)
	for _, line := range lines {
		name, modeText, hasMode := strings.Cut(line, " ")
		mode := uint16(0o644)
		n := &tree.Node{Kind: tree.Regular}
		path := name
		if i := strings.IndexAny(name, "=>&"); i >= 0 {
			path = name[:i]
			switch rest := name[i+1:]; name[i] {
			case '=':
				n.Inline = []byte(rest)
			case '>':
				n.Kind, n.Target, mode = tree.Symlink, rest, 0o777
			case '&':
				n = root.Lookup(rest)
				mode = n.Mode
			}
		} else if dir, ok := strings.CutSuffix(name, "/"); ok {
			path, n, mode = dir, tree.NewDir(0), 0o755
		} else {
			n.Inline = []byte(name[strings.LastIndexByte(name, '/')+1:])
		}
		if hasMode {
			fmt.Sscanf(modeText, "%o", &mode)
		}
		n.Mode, n.Size = mode, uint64(len(n.Inline))
		dir := root
		parts := strings.Split(path, "/")
		for _, part := range parts[:len(parts)-1] {
			if dir.Child(part) == nil {
				dir.SetChild(part, tree.NewDir(0o755))
			}
			dir = dir.Child(part)
		}
		if old := dir.Child(parts[len(parts)-1]); old != nil && old.Kind == tree.Directory && n.Kind == tree.Directory {
			old.Mode = n.Mode
			continue
		}
		dir.SetChild(parts[len(parts)-1], n)
	}
	return root
}

// describe lists a tree, one entry a line, with hard links shown by the first name.
func describe(root *tree.Node) []string {
	first := make(map[*tree.Node]string)
	var lines []string
	for path, n := range root.Walk() {
		line := fmt.Sprintf("%s %o %d:%d %d", path, n.Mode, n.UID, n.GID, n.Mtime.Sec)
		for _, x := range n.Xattrs {
			line += fmt.Sprintf(" %s=%x", x.Name, x.Value)
		}
		switch n.Kind {
		case tree.Directory:
			line += " /"
		case tree.Symlink:
			line += " >" + n.Target
		default:
			line += " =" + string(n.Inline)
			if other, ok := first[n]; ok {
				line += " &" + other
			} else {
				first[n] = path
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func mustCompose(t *testing.T, inputs ...Input) Result {
	t.Helper()
	r, err := Compose(inputs)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// layers gives trees the names a, b, c, ... and falling priorities.
func layers(roots ...*tree.Node) []Input {
	var inputs []Input
	for i, root := range roots {
		inputs = append(inputs, Input{Name: string(rune('a' + i)), Version: "1", EffectivePriority: 10 - i, Root: root})
	}
	return inputs
}

func TestMerge(t *testing.T) {
	tests := []struct {
		name      string
		inputs    []*tree.Node
		want      *tree.Node
		conflicts []string
		moves     []string
		shared    int
	}{
		{name: "one module", inputs: []*tree.Node{build("etc/x", "usr/y")}, want: build("etc/x", "usr/y")},
		{name: "directories merge", inputs: []*tree.Node{build("etc/x", "etc/d/1"), build("etc/y", "etc/d/2")}, want: build("etc/x", "etc/y", "etc/d/1", "etc/d/2")},
		{
			name: "the higher file wins", inputs: []*tree.Node{build("etc/x=new"), build("etc/x=old")}, want: build("etc/x=new"),
			conflicts: []string{"/etc/x a>b content: its priority 10 is higher than b's 9"},
		},
		{
			name: "mode counts", inputs: []*tree.Node{build("x 755"), build("x 644")}, want: build("x 755"),
			conflicts: []string{"/x a>b attributes: its priority 10 is higher than b's 9"},
		},
		{name: "equal files are shared", inputs: []*tree.Node{build("x"), build("x"), build("x")}, want: build("x"), shared: 2},
		{
			name: "some share and some differ", inputs: []*tree.Node{build("x=1"), build("x=1"), build("x=2")}, want: build("x=1"), shared: 1,
			conflicts: []string{"/x a>c content: its priority 10 is higher than c's 8"},
		},
		{
			name: "directory attributes", inputs: []*tree.Node{build("d/ 700"), build("d/ 755", "d/x")}, want: build("d/ 700", "d/x"),
			conflicts: []string{"/d a>b attributes: its priority 10 is higher than b's 9"},
		},
		{
			name: "a file over a directory", inputs: []*tree.Node{build("d=f"), build("d/x", "d/e/y")}, want: build("d=f"),
			conflicts: []string{"/d a>b kind: its priority 10 is higher than b's 9 lost /d/e /d/e/y /d/x"},
		},
		{
			name: "a directory over a file", inputs: []*tree.Node{build("d/x"), build("d=f")}, want: build("d/x"),
			conflicts: []string{"/d a>b kind: its priority 10 is higher than b's 9"},
		},
		{
			name: "a file cuts off what is below it", inputs: []*tree.Node{build("d/x"), build("d=f"), build("d/y")}, want: build("d/x"),
			conflicts: []string{"/d a>b,c kind: its priority 10 is higher than b's 9; its priority 10 is higher than c's 8 lost /d/y"},
		},
		{name: "symlinks that agree", inputs: []*tree.Node{build("l>x"), build("l>x")}, want: build("l>x"), shared: 1},
		{
			name: "a dangling symlink is like a file", inputs: []*tree.Node{build("l>nowhere"), build("l/x")}, want: build("l>nowhere"),
			conflicts: []string{"/l a>b kind: its priority 10 is higher than b's 9 lost /l/x"},
		},
		{
			name:   "usr-merge, the directory higher",
			inputs: []*tree.Node{build("sbin/x=new", "sbin/sub/z"), build("sbin>usr/sbin", "usr/sbin/init", "usr/sbin/x=old")},
			want:   build("sbin>usr/sbin", "usr/sbin/init", "usr/sbin/x=new", "usr/sbin/sub/z"),
			moves:  []string{"/sbin /usr/sbin a b"}, conflicts: []string{"/usr/sbin/x a>b content: its priority 10 is higher than b's 9"},
		},
		{
			name:   "usr-merge, the link higher",
			inputs: []*tree.Node{build("sbin>/usr/sbin", "usr/sbin/init"), build("sbin/ 700", "sbin/x")},
			want:   build("sbin>/usr/sbin", "usr/sbin/init", "usr/sbin/x"),
			moves:  []string{"/sbin /usr/sbin b a"},
		},
		{
			name:   "a module's own path goes before what moves there",
			inputs: []*tree.Node{build("sbin/x=moved", "usr/sbin/x=own"), build("sbin>usr/sbin", "usr/sbin/y")},
			want:   build("sbin>usr/sbin", "usr/sbin/x=own", "usr/sbin/y"),
			moves:  []string{"/sbin /usr/sbin a b"}, conflicts: []string{"/usr/sbin/x a>a content: its own path goes before /sbin/x, which moved here"},
		},
		{
			name:   "links through links",
			inputs: []*tree.Node{build("var/run/d/x"), build("var/run>../r2"), build("r2>r3/./q/..", "r3/q/", "r3/y")},
			want:   build("var/run>../r2", "r2>r3/./q/..", "r3/q/", "r3/y", "r3/d/x"),
			moves:  []string{"/var/run /r3 a b"},
		},
		{
			name:   "a move into a move",
			inputs: []*tree.Node{build("lib/m/x"), build("lib>usr/lib", "usr/lib/m>../share/m", "usr/share/m/y")},
			want:   build("lib>usr/lib", "usr/lib/m>../share/m", "usr/share/m/y", "usr/share/m/x"),
			moves:  []string{"/lib /usr/lib a b", "/usr/lib/m /usr/share/m a b"},
		},
		{
			name: "two links that lead to different places", inputs: []*tree.Node{build("s>p", "p/1"), build("s>q", "q/2"), build("s/x")},
			want:  build("s>p", "p/1", "q/2", "p/x"),
			moves: []string{"/s /p c a"}, conflicts: []string{"/s a>b content: its priority 10 is higher than b's 9"},
		},
		{
			name: "a link to itself", inputs: []*tree.Node{build("d/x"), build("d>d")}, want: build("d/x"),
			conflicts: []string{"/d a>b kind: its priority 10 is higher than b's 9"},
		},
		{
			name: "a link into the directory it stands for", inputs: []*tree.Node{build("d/e/x"), build("d>d/e")}, want: build("d/e/x"),
			conflicts: []string{"/d a>b kind: its priority 10 is higher than b's 9"},
		},
		{
			name: "a link to the directory above", inputs: []*tree.Node{build("b/X11/x"), build("b/X11>.", "b/y")}, want: build("b/X11>.", "b/y", "b/x"),
			moves: []string{"/b/X11 /b a b"},
		},
		{
			name: "hard links within a module", inputs: []*tree.Node{build("x=1", "y&x", "z&x"), build("q"), build("y=2")}, want: build("x=1", "y&x", "z&x", "q"),
			conflicts: []string{"/y a>c content: its priority 10 is higher than c's 8"},
		},
		{
			name: "a hard link loses a name", inputs: []*tree.Node{build("y=2"), build("x=1", "y&x", "z&x")}, want: build("x=1", "y=2", "z&x"),
			conflicts: []string{"/y a>b content: its priority 10 is higher than b's 9"},
		},
		{name: "hard links don't cross modules", inputs: []*tree.Node{build("x=1", "y&x"), build("x=1", "z&x")}, want: build("x=1", "y&x", "z=1"), shared: 1},
		{name: "the root is like usr", inputs: []*tree.Node{build("usr/ 700")}, want: func() *tree.Node { n := build("usr/ 700"); n.Mode = 0o700; return n }()},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := mustCompose(t, layers(test.inputs...)...)
			if diff := cmp.Diff(describe(test.want), describe(r.Root)); diff != "" {
				t.Error(diff)
			}
			var conflicts, moves []string
			for _, c := range r.Report.Conflicts {
				s := fmt.Sprintf("%s %s>%s %s: %s", c.Path, c.Winner, strings.Join(c.Losers, ","), c.Difference, c.Reason)
				if len(c.Lost) > 0 {
					s += " lost " + strings.Join(c.Lost, " ")
				}
				conflicts = append(conflicts, s)
			}
			for _, m := range r.Report.Moves {
				moves = append(moves, strings.Join([]string{m.From, m.To, m.Module, m.LinkedBy}, " "))
			}
			if diff := cmp.Diff(test.conflicts, conflicts); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(test.moves, moves); diff != "" {
				t.Error(diff)
			}
			if r.Report.Shared != test.shared {
				t.Errorf("%d shared, want %d", r.Report.Shared, test.shared)
			}
		})
	}
}

func TestTieGoesByName(t *testing.T) {
	r := mustCompose(t, Input{Name: "zeta", Root: build("x=z")}, Input{Name: "alpha", Root: build("x=a")})
	if owner, ok := r.Owner("x"); owner != "alpha" || !ok {
		t.Errorf("the owner is %q", owner)
	}
	if got := r.Report.Conflicts[0].Reason; got != "it goes before zeta by name, at the same priority 0" {
		t.Error(got)
	}
	if _, ok := r.Owner("nothing"); ok {
		t.Error("nothing has an owner")
	}
}

func TestMask(t *testing.T) {
	high := Input{Name: "high", EffectivePriority: 9, Root: build("etc/own", "etc/keep"), Mask: []string{"/etc/own", "/etc/low", "/var/log/**", "/sbin/gone"}}
	low := Input{Name: "low", EffectivePriority: 1, Root: build("etc/own", "etc/low", "var/log/a/b", "var/log/c", "etc/mine", "usr/sbin/y", "sbin>usr/sbin"), Mask: []string{"/etc/keep", "/etc/mine"}}
	top := Input{Name: "top", EffectivePriority: 10, Root: build("var/log/top", "sbin/gone=moved")}
	r := mustCompose(t, low, high, top)
	want := describe(build("etc/keep", "var/log/top", "usr/sbin/y", "usr/sbin/gone=moved", "sbin>usr/sbin"))
	if diff := cmp.Diff(want, describe(r.Root)); diff != "" {
		t.Error(diff)
	}
	wantMasked := []Masked{
		{"/etc/low", "low", "high"},
		{"/etc/mine", "low", "low"},
		{"/etc/own", "high", "high"},
		{"/etc/own", "low", "high"},
		{"/var/log/a", "low", "high"},
		{"/var/log/c", "low", "high"},
	}
	if diff := cmp.Diff(wantMasked, r.Report.Masked); diff != "" {
		t.Error(diff)
	}
	// The same file, ranking lower, is masked with the path that it has in its module.
	top.EffectivePriority = 5
	if r = mustCompose(t, low, high, top); r.Root.Lookup("usr/sbin/gone") != nil {
		t.Error("a mask didn't see the path from before the move")
	}
}

func TestProtected(t *testing.T) {
	base := Input{Name: "base", EffectivePriority: 1, Root: build("etc/passwd", "opt/x/y", "usr/sbin/init", "sbin>usr/sbin", "usr/lib/powernode/modules/base/manifest.yaml"), Protected: []string{"/etc/passwd", "/opt/x", "/usr/sbin/init", "/srv/only/"}}
	tests := []struct {
		name  string
		other Input
		want  string
	}{
		{"another path", Input{Root: build("etc/other", "opt/z")}, ""},
		{"the same directory", Input{Root: build("opt/x/")}, ""},
		{"a file where only a directory is protected", Input{Root: build("srv/only")}, ""},
		{"a higher module", Input{EffectivePriority: 2, Root: build("etc/passwd")}, "other ships /etc/passwd, which module base protects"},
		{"a lower module", Input{EffectivePriority: 0, Root: build("etc/passwd=evil")}, "other ships /etc/passwd, "},
		{"below a protected directory", Input{Root: build("opt/x/new")}, "other ships /opt/x/new, "},
		{"a directory of its own", Input{Root: build("opt/x/new/")}, "other ships /opt/x/new, "},
		{"a directory with other attributes", Input{Root: build("opt/x/ 777")}, "other ships /opt/x, "},
		{"a protected directory that its owner lacks", Input{Root: build("srv/only/x")}, "other ships /srv/only, "},
		{"through a symlink", Input{Root: build("sbin/init")}, "other ships /usr/sbin/init, "},
		{"by a mask", Input{EffectivePriority: 2, Root: build("x"), Mask: []string{"/etc/**"}}, "other hides /etc/passwd, "},
		{"by a mask on a directory above", Input{EffectivePriority: 2, Root: build("x"), Mask: []string{"/etc"}}, "other hides /etc/passwd, "},
		{"a mask of lower rank", Input{EffectivePriority: 0, Root: build("x"), Mask: []string{"/etc/**"}}, ""},
		{"a file above", Input{EffectivePriority: 2, Root: build("etc=file")}, "other hides /etc/passwd, "},
		{"a file above, of lower rank", Input{EffectivePriority: 0, Root: build("etc=file")}, ""},
		{"another's manifest", Input{Root: build("usr/lib/powernode/modules/base/manifest.yaml")}, "other ships /usr/lib/powernode/modules/base/manifest.yaml, "},
		{"what it masks itself", Input{Root: build("etc/passwd"), Mask: []string{"/etc/passwd"}, EffectivePriority: 0}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.other.Name = "other"
			_, err := Compose([]Input{base, test.other})
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				t.Fatal("composed")
			}
			if !strings.Contains(err.Error(), test.want) || fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Policy {
				t.Errorf("got %v, want %q", err, test.want)
			}
			var p *ProtectedError
			if !errors.As(err, &p) || p.Owner != "base" || p.Intruder != "other" {
				t.Errorf("%+v", p)
			}
		})
	}
	// What the protector has elsewhere is protected where it moves to.
	owner := Input{Name: "owner", Root: build("sbin/tool"), Protected: []string{"/sbin/tool"}}
	linker := Input{Name: "linker", EffectivePriority: 5, Root: build("sbin>usr/sbin", "usr/sbin/tool=evil")}
	if _, err := Compose([]Input{owner, linker}); err == nil || !strings.Contains(err.Error(), "linker ships /usr/sbin/tool, which module owner protects") {
		t.Errorf("got %v", err)
	}
}

func TestRefused(t *testing.T) {
	for name, inputs := range map[string][]Input{
		"nothing":        nil,
		"no root":        {{Name: "a"}},
		"a file as root": {{Name: "a", Root: &tree.Node{Kind: tree.Regular}}},
		"twice":          {{Name: "a", Root: build()}, {Name: "a", Root: build(), EffectivePriority: 3}},
		"a bad name":     {{Name: "../a", Root: build()}},
		"a bad mask":     {{Name: "a", Root: build(), Mask: []string{"/a/../b"}}},
		"a bad claim":    {{Name: "a", Root: build(), Protected: []string{""}}},
	} {
		if _, err := Compose(inputs); err == nil || fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Input {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRunStaysEmpty(t *testing.T) {
	r := mustCompose(t, layers(build("var/run/nginx/pid"), build("var/run>/run", "run/"))...)
	if diff := cmp.Diff(describe(build("var/run>/run", "run/")), describe(r.Root)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Owned{{"/run/nginx", "a"}}, r.Report.Dropped); diff != "" {
		t.Error(diff)
	}
}

func TestReport(t *testing.T) {
	r := mustCompose(t, layers(
		build("usr/lib/p/libx.so.1", "etc/c=1", "sbin/a b", "etc/\x1b=1", "usr/lib/z/libq.so.2", "usr/lib/y/libq.so.2"),
		build("usr/lib/libx.so.1", "etc/c=2", "sbin>usr/sbin", "usr/sbin/i", "etc/\x1b=2"),
	)...)
	wantLibraries := []Library{{"libx.so.1", []Owned{{"/usr/lib/libx.so.1", "b"}, {"/usr/lib/p/libx.so.1", "a"}}}}
	if diff := cmp.Diff(wantLibraries, r.Report.Libraries); diff != "" {
		t.Error(diff)
	}
	b, err := json.Marshal(r.Report)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.Report, back); diff != "" {
		t.Error(diff)
	}
	var text bytes.Buffer
	if err := r.Report.WriteText(&text, 1); err != nil {
		t.Fatal(err)
	}
	want := `2 modules, 16 entries, 7 of them directories; 0 shared, 2 conflicts
conflicts:
  "/etc/\x1b": a wins over b (content): its priority 10 is higher than b's 9
  and 1 more
moved:
  /sbin of a to /usr/sbin, where the symlink of b leads
libraries in several places:
  libx.so.1: /usr/lib/libx.so.1 of b, /usr/lib/p/libx.so.1 of a
`
	if diff := cmp.Diff(want, text.String()); diff != "" {
		t.Error(diff)
	}
	if !slices.IsSortedFunc(r.Report.Conflicts, func(a, b Conflict) int { return strings.Compare(a.Path, b.Path) }) {
		t.Error("the conflicts are out of order")
	}
}
