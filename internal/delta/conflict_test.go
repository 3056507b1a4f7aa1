package delta

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/tree"
)

// dirTree makes a tree of paths and contents; a path that ends in a slash is a directory, and content that begins
// with "-> " a symlink.
func dirTree(files ...string) *tree.Node {
	root := tree.NewDir(0o755)
	for i := 0; i < len(files); i += 2 {
		dir := root
		parts := strings.Split(strings.TrimSuffix(files[i], "/"), "/")
		for _, name := range parts[:len(parts)-1] {
			if dir.Child(name) == nil {
				dir.SetChild(name, tree.NewDir(0o755))
			}
			dir = dir.Child(name)
		}
		n := &tree.Node{Kind: tree.Regular, Mode: 0o644, Inline: []byte(files[i+1]), Size: uint64(len(files[i+1]))}
		if target, ok := strings.CutPrefix(files[i+1], "-> "); ok {
			n = &tree.Node{Kind: tree.Symlink, Mode: 0o777, Target: target}
		} else if strings.HasSuffix(files[i], "/") {
			n = tree.NewDir(0o755)
		}
		dir.SetChild(parts[len(parts)-1], n)
	}
	return root
}

// deltaOf makes a delta of entries: "path kind" and more, in the order of paths.
func deltaOf(entries ...Entry) *Delta {
	d := &Delta{}
	for _, e := range entries {
		if e.Mode == 0 && e.Kind.isDir() {
			e.Mode = 0o755
		}
		d.Entries = append(d.Entries, e)
	}
	return d
}

func TestConflicts(t *testing.T) {
	from := dirTree("etc/x", "1", "etc/y", "1", "etc/l", "-> a", "etc/d/f", "1", "etc/e/f", "1", "opt/a/f", "1", "opt/z", "1", "etc/m", "1")
	to := dirTree("etc/x", "2", "etc/y", "1", "etc/l", "-> b", "etc/d", "a file", "etc/e/f", "2", "etc/new", "new", "opt/a/f", "2", "opt/b/g", "g", "opt/z", "1", "etc/m", "1")
	to.Lookup("etc/m").Mode = 0o600
	opt := Entry{Path: "/opt", Kind: Directory}
	etc := Entry{Path: "/etc", Kind: Directory}
	for name, c := range map[string]struct {
		d    *Delta
		want string
	}{
		"a file that changes":               {deltaOf(etc, Entry{Path: "/etc/x", Kind: File}), "/etc/x content"},
		"a file that stays":                 {deltaOf(etc, Entry{Path: "/etc/y", Kind: File}), ""},
		"a file whose mode changes":         {deltaOf(etc, Entry{Path: "/etc/m", Kind: File}), "/etc/m attributes"},
		"a metacopy of a file that changes": {deltaOf(etc, Entry{Path: "/etc/x", Kind: Metacopy}), "/etc/x content"},
		"a whiteout of one that changes":    {deltaOf(etc, Entry{Path: "/etc/x", Kind: Whiteout}), "/etc/x content"},
		"a whiteout of one that stays":      {deltaOf(etc, Entry{Path: "/etc/y", Kind: Whiteout}), ""},
		"a whiteout of what comes again":    {deltaOf(etc, Entry{Path: "/etc/new", Kind: Whiteout}), "/etc/new added"},
		"a file where one comes":            {deltaOf(etc, Entry{Path: "/etc/new", Kind: File}), "/etc/new added"},
		"the same link on both sides":       {deltaOf(etc, Entry{Path: "/etc/l", Kind: Symlink, Target: "b"}), ""},
		"another link":                      {deltaOf(etc, Entry{Path: "/etc/l", Kind: Symlink, Target: "c"}), "/etc/l content"},
		"in a directory that becomes a file": {
			deltaOf(etc, Entry{Path: "/etc/d", Kind: Directory}, Entry{Path: "/etc/d/f", Kind: File}), "/etc/d kind, /etc/d/f removed",
		},
		"a new file in a directory that stays": {
			deltaOf(etc, Entry{Path: "/etc/e", Kind: Directory}, Entry{Path: "/etc/e/mine", Kind: File}), "",
		},
		"a directory that replaced one which changes": {
			deltaOf(etc, Entry{Path: "/etc/e", Kind: Opaque}, Entry{Path: "/etc/e/f", Kind: File}), "/etc/e content",
		},
		"a directory that was made where one comes": {
			deltaOf(opt, Entry{Path: "/opt/b", Kind: Opaque}, Entry{Path: "/opt/b/g", Kind: File}), "/opt/b/g added",
		},
		"a directory that was renamed to where one comes": {
			deltaOf(opt, Entry{Path: "/opt/b", Kind: Redirected, Redirect: "a"}, Entry{Path: "/opt/b/f", Kind: File}),
			"/opt/b added, /opt/b content from /opt/a, /opt/b/f content",
		},
		"a file that was renamed": {
			deltaOf(opt, Entry{Path: "/opt/y", Kind: Metacopy, Redirect: "/etc/x"}), "/opt/y content from /etc/x",
		},
		"a directory whose mode was changed": {
			deltaOf(etc, Entry{Path: "/etc/e", Kind: Directory, Mode: 0o700}), "",
		},
		"what isn't in a known directory": {deltaOf(Entry{Path: "/etc/x", Kind: File}), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := make([]string, 0)
			for _, c := range Conflicts(c.d, from, to) {
				text := c.Path + " " + c.Below.String()
				if c.Origin != "" {
					text += " from " + c.Origin
				}
				if c.String() == "" || strings.Contains(c.String(), "%!") {
					t.Errorf("said as %q", c)
				}
				got = append(got, text)
			}
			if s := strings.Join(got, ", "); s != c.want {
				t.Errorf("conflicts %q, want %q", s, c.want)
			}
		})
	}
	to.Lookup("etc/e").Mode = 0o711
	d := deltaOf(etc, Entry{Path: "/etc/e", Kind: Directory, Mode: 0o700})
	if got := fmt.Sprint(Conflicts(d, from, to)); !strings.Contains(got, "another mode") {
		t.Errorf("a mode that both sides changed: %s", got)
	}
}

func TestConflictsOfAPersistentEtc(t *testing.T) {
	from, to := dirTree("etc/x", "1", "etc/d/y", "1"), dirTree("etc/x", "1", "etc/d/y", "2")
	d := deltaOf(Entry{Path: "/d", Kind: Directory}, Entry{Path: "/d/y", Kind: File}, Entry{Path: "/x", Kind: File})
	got := ConflictsAt("/etc", d, from, to)
	if len(got) != 1 || got[0].Path != "/etc/d/y" || got[0].Below != Content {
		t.Errorf("conflicts %v", got)
	}
	if got := ConflictsAt("/etc", d, dirTree(), to); len(got) != 2 || got[0].Below != Added {
		t.Errorf("conflicts of an /etc that is new: %v", got)
	}
	both := deltaOf(Entry{Path: "/etc", Kind: Directory}, Entry{Path: "/etc/x", Kind: File}, Entry{Path: "/etcetera", Kind: File}, Entry{Path: "/var", Kind: Directory})
	both.Skipped = []Trouble{{"/var/x", "deep"}, {"/opt", "deep"}}
	if seen := both.Without("etc", "var"); len(seen.Entries) != 1 || seen.Entries[0].Path != "/etcetera" || len(seen.Skipped) != 1 {
		t.Errorf("without what is covered: %v", seen)
	}
}

func TestJSON(t *testing.T) {
	b, err := json.Marshal(struct {
		C Conflict
		P *Plan
	}{
		Conflict{Path: "/etc/x", Local: Metacopy, Below: Type, Origin: "/etc/y"},
		&Plan{Steps: []Step{{Do: MakeWhole, Path: "/opt/b", Origin: "/opt/a", Files: 1, Bytes: 2}}, Unsettled: []Trouble{{"/x", "why"}}},
	})
	must(t, err)
	const want = `{"C":{"path":"/etc/x","local":"metacopy","below":"kind","origin":"/etc/y"},` +
		`"P":{"steps":[{"do":"make-whole","path":"/opt/b","origin":"/opt/a","files":1,"bytes":2}],"files":0,"bytes":0,"unsettled":[{"path":"/x","why":"why"}]}}`
	if string(b) != want {
		t.Errorf("%s\nwant\n%s", b, want)
	}
}
