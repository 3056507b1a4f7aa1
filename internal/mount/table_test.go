package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
)

const someDigest = "30504a8e866e0e5939e94c6f806eec060b006cff9aa83261b5efefbd9ab67142"

// sampleTable is as kernels 6.5 to 6.18 write it.
var sampleTable = strings.ReplaceAll(`27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 0:40 / /a\040b rw,relatime shared:7 master:2 - overlay powernode:DIGEST rw,lowerdir+=/,datadir+=/persist/o\054bjects,upperdir=/persist/up\040per,workdir=/persist/work,redirect_dir=on,metacopy=on,verity=require,volatile
41 27 0:41 / /old ro,nosuid - overlay powernode:DIGEST ro,lowerdir=/proc/self/fd/7::/proc/self/fd/8,redirect_dir=on,metacopy=on
42 27 0:42 / /many ro - overlay overlay ro,lowerdir=/x:/y
43 40 0:43 / /a\040b/tmp rw master:2 - tmpfs tmpfs rw
44 27 0:44 / /empty rw - tmpfs  rw
`, "DIGEST", someDigest)

func parsed(t *testing.T) Table {
	t.Helper()
	table, err := ParseTable(strings.NewReader(sampleTable))
	must(t, err)
	return table
}

func TestTable(t *testing.T) {
	table := parsed(t)
	unions := table.Unions()
	if len(unions) != 2 {
		t.Fatalf("%d unions", len(unions))
	}
	first, second := unions[0], unions[1]
	if first.Entry.Point != "/a b" || !first.Entry.Shared || first.Entry.Parent != 27 || first.Entry.ID != (ID{Mount: 40, Minor: 40}) {
		t.Errorf("entry %+v", first.Entry)
	}
	if first.Digest.String() != someDigest || first.Level != Enforced || !first.Volatile {
		t.Errorf("union %+v", first)
	}
	if first.Upper != "/persist/up per" || first.Work != "/persist/work" || !slices.Equal(first.Data, []string{"/persist/o,bjects"}) || !slices.Equal(first.Layers, []string{"/"}) {
		t.Errorf("directories %+v", first)
	}
	if second.Level != Checked || second.Upper != "" || second.Volatile || second.Entry.Shared ||
		!slices.Equal(second.Layers, []string{"/proc/self/fd/7"}) || !slices.Equal(second.Data, []string{"/proc/self/fd/8"}) {
		t.Errorf("old syntax %+v", second)
	}
	if e, ok := table.Find(44); !ok || e.Source != "" || e.FSType != "tmpfs" {
		t.Errorf("a mount without a source: %+v, %v", e, ok)
	}
	if v, ok := second.Entry.Value("redirect_dir"); !ok || v != "on" {
		t.Errorf("redirect_dir=%q, %v", v, ok)
	}
	if _, err := ParseTable(strings.NewReader("27 1 254:0 /\n")); err == nil {
		t.Error("a line that is cut short was accepted")
	}
}

// TestProve covers what can't be had on a running kernel at will.
func TestProve(t *testing.T) {
	table := parsed(t)
	tests := map[string]struct {
		id    ID
		claim Claim
		kind  fault.Kind
		ok    bool
	}{
		"ours":                      {id: ID{Mount: 41, Minor: 41}, ok: true},
		"ours, recorded before 6.8": {id: ID{Mount: 41, Minor: 41, Unique: 9}, claim: Claim{ID: ID{Mount: 41, Minor: 41}}, ok: true},
		"number used again":         {id: ID{Mount: 41, Minor: 41, Unique: 9}, claim: Claim{ID: ID{Mount: 41, Minor: 41, Unique: 8}}, kind: fault.Refuse},
		"number used again, old":    {id: ID{Mount: 41, Minor: 41}, claim: Claim{ID: ID{Mount: 41, Minor: 40}}, kind: fault.Refuse},
		"something below":           {id: ID{Mount: 40, Minor: 40}, kind: fault.Refuse},
		"somebody else's":           {id: ID{Mount: 42, Minor: 42}, kind: fault.Refuse},
		"gone":                      {id: ID{Mount: 99}, kind: fault.Broken},
	}
	for name, test := range tests {
		err := table.prove("/x", test.id, test.claim)
		if (err == nil) != test.ok || (err != nil && fault.KindOf(err) != test.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		`a\040b`: "a b", `\134`: `\`, `\0`: `\0`, `\08x`: `\08x`, `\777`: `\777`, `\303\251`: "é", "": "", `end\`: `end\`,
	} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzParseTable(f *testing.F) {
	f.Add(sampleTable)
	f.Add("1 1 0:1 / / rw - overlay powernode:" + someDigest + " lowerdir+=,datadir+=,metacopy=on\n")
	f.Fuzz(func(t *testing.T, text string) {
		table, err := ParseTable(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, u := range table.Unions() {
			if u.Digest.IsZero() && !strings.HasSuffix(u.Entry.Source, strings.Repeat("0", 64)) {
				t.Errorf("a union without a digest: %+v", u)
			}
			if u.Entry.FSType != "overlay" || len(u.Data) == 0 {
				t.Errorf("taken for ours: %+v", u)
			}
		}
	})
}

func TestLogText(t *testing.T) {
	for record, want := range map[string]string{
		"3,1196,5140900,-;overlayfs: bad\n SUBSYSTEM=x\n": "overlayfs: bad", "6,1,2,-;a;b": "a;b", "no record": "",
	} {
		if got, ok := logText(record); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", record, got, ok)
		}
	}
}

func TestStack(t *testing.T) {
	table, err := ParseTable(strings.NewReader(`10 1 0:1 / / rw shared:5 - overlay x rw
11 10 0:2 /usr /usr rw shared:6 master:5 - overlay y rw
12 11 0:3 /usr /usr rw master:77 - overlay z rw
13 12 0:4 / /usr/local rw unbindable - tmpfs t rw
14 10 0:5 / /etc rw - tmpfs t rw
`))
	must(t, err)
	for path, want := range map[string][]int{"/usr": {11, 12}, "/etc": {14}, "/opt": nil, "/usr/local": nil} {
		var got []int
		for _, e := range table.Stack(10, path) {
			got = append(got, e.ID.Mount)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	var groups [][2]int
	for _, e := range table {
		groups = append(groups, [2]int{e.Group, e.Master})
		if e.Shared != (e.Group != 0) {
			t.Errorf("%s: shared %v, group %d", e.Point, e.Shared, e.Group)
		}
	}
	if want := [][2]int{{5, 0}, {6, 5}, {0, 77}, {}, {}}; !slices.Equal(groups, want) {
		t.Errorf("groups %v, want %v", groups, want)
	}
}

// TestInUse has an overlay that only an open file holds.
func TestInUse(t *testing.T) {
	mounttest.NeedMounts(t)
	for place, dir := range somewhere {
		s, state := seal(t, t.TempDir(), sample), dir(t)
		spec := s.writable(t, state)
		var dirs [6]*os.File
		for i := range dirs {
			path := filepath.Join(state, fmt.Sprint("probe", i))
			must(t, os.Mkdir(path, 0o700))
			dirs[i] = open(t, path)
		}
		m, err := Union(spec)
		must(t, err)
		root := attached(t, m)
		held := open(t, filepath.Join(root, "etc/hostname"))
		must(t, Unmount(root, Claim{}))
		used, err := WorkInUse(dirs[0], dirs[1], spec.Work)
		must(t, err)
		free, err := WorkInUse(dirs[0], dirs[2], dirs[3])
		must(t, err)
		if !used || free {
			t.Errorf("%s: in use %v, free in use %v", place, used, free)
		}
		held.Close()
		if used, err = WorkInUse(dirs[0], dirs[4], spec.Work); err != nil || used {
			t.Errorf("%s: after the last one closed it: %v, %v", place, used, err)
		}
	}
}
