package layer

import (
	"archive/tar"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fault"
)

func TestMerge(t *testing.T) {
	base := []entry{
		{name: "etc/"},
		{name: "etc/a", body: "lower"},
		{name: "etc/d/"},
		{name: "etc/d/x"},
		{name: "etc/d/y/z"},
		{name: "lib", kind: tar.TypeSymlink, link: "usr/lib"},
		{name: "usr/lib/so"},
	}
	for name, test := range map[string]struct {
		upper [][]entry
		want  []string
	}{
		"nothing": {nil, []string{"etc/", "etc/a", "etc/d/", "etc/d/x", "etc/d/y/", "etc/d/y/z", "lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/so"}},
		"whiteout of a file": {
			[][]entry{{{name: "etc/.wh.a"}}},
			[]string{"etc/", "etc/d/", "etc/d/x", "etc/d/y/", "etc/d/y/z", "lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/so"},
		},
		"whiteout of a directory, a symlink and of nothing": {
			[][]entry{{{name: "etc/.wh.d"}, {name: ".wh.lib"}, {name: "no/such/.wh.thing"}, {name: "lib/.wh.so"}}},
			[]string{"etc/", "etc/a", "usr/", "usr/lib/", "usr/lib/so"},
		},
		"whiteout, then a new one": {
			[][]entry{{{name: "etc/.wh.d"}, {name: "etc/d/"}, {name: "etc/d/new"}}},
			[]string{"etc/", "etc/a", "etc/d/", "etc/d/new", "lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/so"},
		},
		"opaque before and after": {
			[][]entry{{{name: "etc/d/new"}, {name: "etc/d/.wh..wh..opq"}, {name: "etc/d/newer"}}},
			[]string{"etc/", "etc/a", "etc/d/", "etc/d/new", "etc/d/newer", "lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/so"},
		},
		"opaque root": {
			[][]entry{{{name: ".wh..wh..opq"}, {name: "only"}}},
			[]string{"only"},
		},
		"opaque over what another layer put": {
			[][]entry{{{name: "etc/d/mid"}}, {{name: "etc/d/.wh..wh..opq"}}},
			[]string{"etc/", "etc/a", "etc/d/", "lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/so"},
		},
		"file over a full directory of a lower layer": {
			[][]entry{{{name: "etc/d"}}},
			[]string{"etc/", "etc/a", "etc/d", "lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/so"},
		},
		"directory over a symlink": {
			[][]entry{{{name: "lib/"}, {name: "lib/own"}}},
			[]string{"etc/", "etc/a", "etc/d/", "etc/d/x", "etc/d/y/", "etc/d/y/z", "lib/", "lib/own", "usr/", "usr/lib/", "usr/lib/so"},
		},
		"empty directory replaced in its own layer": {
			[][]entry{{{name: "bin/"}, {name: "bin", kind: tar.TypeSymlink, link: "usr/bin"}, {name: "etc/.wh.d"}, {name: "etc/.wh.a"}, {name: ".wh.lib"}, {name: "usr/.wh.lib"}}},
			[]string{"bin -> usr/bin", "etc/", "usr/"},
		},
		"the same layers again": {
			[][]entry{base, {{name: "etc/.wh.d"}, {name: "etc/d"}}, base},
			[]string{"etc/", "etc/a", "etc/d/", "etc/d/x", "etc/d/y/", "etc/d/y/z", "lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/so"},
		},
	} {
		layers := []*Layer{readEntries(t, base...)}
		for _, upper := range test.upper {
			layers = append(layers, readEntries(t, upper...))
		}
		root, err := Merge(layers...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(test.want, paths(root)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestMergeOneLayerTwice(t *testing.T) {
	l := readEntries(t, entry{name: "d/"}, entry{name: "d/a"})
	mid := readEntries(t, entry{name: ".wh.d"}, entry{name: "d", body: "file"})
	root, err := Merge(l, readEntries(t, entry{name: "d/b"}), mid, l)
	if err != nil {
		t.Fatal(err)
	}
	if got := paths(root); !slices.Equal(got, []string{"d/", "d/a"}) {
		t.Errorf("paths are %q", got)
	}
}

func TestMergeKeepsMetadataAndLinks(t *testing.T) {
	root, err := Merge(
		readEntries(t, entry{name: "d/", mode: 0o700, uid: 5}, entry{name: "d/f", body: "one"}, entry{name: "d/g", kind: tar.TypeLink, link: "d/f"}),
		readEntries(t, entry{name: "d/", mode: 0o711, mtime: time.Unix(9, 0)}, entry{name: "far/h", kind: tar.TypeLink, link: "d/f"}),
		readEntries(t, entry{name: "d/f", body: "two"}),
	)
	if err != nil {
		t.Fatal(err)
	}
	if d := root.Lookup("d"); d.Mode != 0o711 || d.UID != 0 || d.Mtime.Sec != 9 || d.Len() != 2 {
		t.Errorf("d = %+v", d)
	}
	if far := root.Lookup("far"); far.Mode != 0o755 || far.Mtime.Sec != 0 {
		t.Errorf("an unnamed parent = %+v", far)
	}
	f, g, h := root.Lookup("d/f"), root.Lookup("d/g"), root.Lookup("far/h")
	if g != h || string(g.Inline) != "one" || f == g || string(f.Inline) != "two" {
		t.Errorf("f %p %q, g %p, h %p %q", f, f.Inline, g, h, h.Inline)
	}
}

func TestMergeRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		lower, upper []entry
		want         string
	}{
		"below a lower symlink":      {[]entry{{name: "lib", kind: tar.TypeSymlink, link: "usr/lib"}}, []entry{{name: "lib/x"}}, "symlink"},
		"below a lower file":         {[]entry{{name: "f"}}, []entry{{name: "f/x/y"}}, "regular file"},
		"link to what it hides":      {[]entry{{name: "f"}}, []entry{{name: "g", kind: tar.TypeLink, link: "f"}, {name: ".wh.f"}}, "not there"},
		"link to a lower directory":  {[]entry{{name: "d/f"}}, []entry{{name: "g", kind: tar.TypeLink, link: "d"}}, "to a directory"},
		"file over what it added to": {[]entry{{name: "d/a/b"}}, []entry{{name: "d/a/c"}, {name: "d"}}, "with entries in it"},
	} {
		_, err := Merge(readEntries(t, test.lower...), readEntries(t, test.upper...))
		if err == nil || !strings.Contains(err.Error(), test.want) || fault.KindOf(err) != fault.Refuse {
			t.Errorf("%s: %v", name, err)
		}
	}
}
