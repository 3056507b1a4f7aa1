package modulebuild

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/tree"
)

func TestSources(t *testing.T) {
	const deb822 = `Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb deb-src
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 AAAA
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
Enabled: no
URIs: http://off.example/
Suites: bookworm
Components: main
`
	const release = "ID=debian\nVERSION_CODENAME=bookworm\n"
	tests := []struct {
		name, suite string
		files       map[string]string
		want        []string
		refused     string
	}{
		{
			name: "deb822", suite: "bookworm", files: map[string]string{"os-release": release, "apt/sources.list.d/a.sources": deb822},
			want: []string{
				"deb [signed-by=/usr/share/keyrings/debian.gpg] http://mirror.example/debian bookworm main",
				"deb [signed-by=/usr/share/keyrings/debian.gpg] http://mirror.example/debian bookworm-updates main",
				"deb [signed-by=KEY] http://security.example/debian-security bookworm-security main",
			},
		},
		{
			name: "one line, another suite", suite: "trixie",
			files: map[string]string{"os-release": "ID='debian'\nVERSION_CODENAME=\"bookworm\"\n", "apt/sources.list": "# deb http://no bookworm main\ndeb-src http://no bookworm main\n" +
				"deb [arch=amd64 signed-by=/k.gpg,/l.gpg trusted=yes] http://m/debian bookworm main non-free # x\ndeb http://s/ bookworm/updates main\ndeb http://other/ nodistro main\n"},
			want: []string{"deb [signed-by=/k.gpg,/l.gpg trusted=yes] http://m/debian trixie main", "deb http://s/ trixie-security main"},
		},
		{
			name: "sid has no updates", suite: "sid",
			files: map[string]string{"os-release": release, "apt/sources.list": "deb http://m bookworm main\ndeb http://m bookworm-updates main\n"},
			want:  []string{"deb http://m sid main"},
		},
		{
			name: "by the name stable", suite: "bookworm", files: map[string]string{"os-release": release, "apt/sources.list": "deb http://m stable main\n"},
			want: []string{"deb http://m bookworm main"},
		},
		{name: "no sources", suite: "bookworm", files: map[string]string{"os-release": release}, refused: "has no source for bookworm main"},
		{name: "not main", suite: "bookworm", files: map[string]string{"os-release": release, "apt/sources.list": "deb http://m bookworm contrib\n"}, refused: "has no source"},
		{name: "no Debian", suite: "bookworm", files: map[string]string{"os-release": "ID=fedora\n"}, refused: "doesn't run a Debian release"},
		{name: "no os-release", suite: "bookworm", refused: "doesn't run a Debian release"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			etc := t.TempDir()
			write(t, etc, test.files)
			sources, err := machine{etc: etc}.debianSources(test.suite)
			if test.refused != "" {
				if err == nil || !strings.Contains(err.Error(), test.refused) || fault.KindOf(err) != fault.Refuse || !strings.Contains(fault.HintOf(err), "--mirror") {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for _, s := range sources {
				lines = append(lines, s.line("KEY"))
				if strings.Contains(s.signedBy, "PGP") && s.signedBy != "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n" {
					t.Errorf("the key became %q", s.signedBy)
				}
			}
			if diff := cmp.Diff(test.want, lines); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMirrors(t *testing.T) {
	build := func(manifest string, mirrors ...string) ([]string, error) {
		o := Options{Manifest: []byte("schema_version: 1\nname: x\nfile_spec: [/a]\n" + manifest), Version: "1", FromDir: t.TempDir(), Layout: filepath.Join(t.TempDir(), "l"), Mirrors: mirrors}
		b, err := newBuilder(o)
		if err != nil {
			t.Fatal(err)
		}
		return b.sourceLines()
	}
	const pinned = "build: {apt_snapshot: 20260415T000000Z}\n"
	lines, err := build(pinned, "https://snapshot.example/{snapshot}/debian", "deb [trusted=yes] copy:/repo ./")
	if diff := cmp.Diff([]string{"deb https://snapshot.example/20260415T000000Z/debian bookworm main", "deb [trusted=yes] copy:/repo ./"}, lines); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for _, test := range []struct{ manifest, mirror, want string }{
		{pinned, "https://mirror.example/debian", "pins apt_snapshot"},
		{pinned, "", "pins apt_snapshot"},
		{"", "https://mirror.example/{snapshot}", "the manifest pins none"},
		{"", "mirror.example/debian", "not a URL"},
		{"", "http://a b", "not a URL"},
	} {
		var mirrors []string
		if test.mirror != "" {
			mirrors = []string{test.mirror}
		}
		if _, err := build(test.manifest, mirrors...); err == nil || !strings.Contains(err.Error(), test.want) || fault.KindOf(err) != fault.Refuse {
			t.Errorf("%q: %v", test.mirror, err)
		}
	}
}

const statusText = `Package: a
Status: install ok installed
Version: 1
Architecture: amd64
Description: first
 second line
 .

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 3

Package: b
Status: install ok installed
Architecture: all
Version: 2
`

func TestStatus(t *testing.T) {
	before, err := installed(statusText)
	if err != nil || len(before) != 2 {
		t.Fatal(before, err)
	}
	if got := before["a:amd64"].get("description"); got != "first\nsecond line\n." {
		t.Errorf("%q", got)
	}
	after, err := installed(strings.Replace(statusText, "Version: 2", "Version: 2.1", 1) + "\nPackage: c\nStatus: install ok installed\nVersion: 9\nArchitecture: all\n")
	if err != nil {
		t.Fatal(err)
	}
	news := added(before, after)
	if diff := cmp.Diff([]Package{{"b", "2.1", "all"}, {"c", "9", "all"}}, packagesOf(news)); diff != "" {
		t.Error(diff)
	}
	if _, err := installed("Package: x\nStatus: install ok half-configured\n"); err == nil || fault.KindOf(err) != fault.Broken {
		t.Errorf("got %v", err)
	}
	// A module over a module: the fragments make the status whole again.
	c := &content{root: tree.NewDir(0o755)}
	if _, err := c.wholeStatus(); err == nil || !strings.Contains(err.Error(), "no Debian system") {
		t.Errorf("got %v", err)
	}
	c.addText(dpkgStatus, statusText)
	c.statusFiles(append(news, after["a:amd64"], stanza{text: "Package: b\nArchitecture: i386\n", fields: map[string]string{"package": "b", "architecture": "i386"}}))
	if got := c.root.Lookup(dpkgStatusD).Names(); !cmp.Equal(got, []string{"a", "b:all", "b:i386", "c"}) {
		t.Errorf("%q", got)
	}
	whole, err := c.wholeStatus()
	if err != nil {
		t.Fatal(err)
	}
	all, err := installed(strings.ReplaceAll(whole, "Architecture: i386\n", "Architecture: i386\nStatus: install ok installed\n"))
	if err != nil || len(all) != 4 || all["b:all"].get("Version") != "2.1" {
		t.Error(all, err)
	}
}

func TestSysusers(t *testing.T) {
	got := sysusers(
		"root:x:0:0:root:/root:/bin/sh\n", "root:x:0:\nadm:x:4:old\n",
		"root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:\"Web\" 100%:/srv/www:/usr/sbin/nologin\nplain:x:102:103:::\n", "root:x:0:\nadm:x:4:old,web\nweb:x:102:\nextra:x:104:web,plain\nplain:x:103:\n",
	)
	want := []string{
		"g web 102", "g extra 104", "g plain 103",
		`u web 101:102 "\"Web\" 100%%" "/srv/www" "/usr/sbin/nologin"`, "u plain 102:103 - - -",
		"m web adm", "m web extra", "m plain extra",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := sysusers("a:x:1:1:::\n", "", "a:x:1:1:::\nbroken\n", "x:y\n"); got != nil {
		t.Errorf("%q", got)
	}
}

func TestClean(t *testing.T) {
	fill := func() *content {
		c := &content{root: tree.NewDir(0o755)}
		for _, path := range []string{
			"dev/null", "proc/1", "run/lock/x", "tmp/x", "etc/hostname", "etc/machine-id", "etc/passwd", "etc/passwd-", "etc/shadow", "etc/keep",
			"etc/ssh/ssh_host_ed25519_key", "etc/ssh/sshd_config", "etc/ld.so.cache", "etc/resolv.conf", "var/log/a/b.log", "var/cache/x/y", "var/lib/apt/lists/z",
			"var/lib/dpkg/status", "var/lib/dpkg/status-old", "var/lib/dpkg/info/a.list", "var/lib/dpkg/lock-frontend", "usr/sbin/policy-rc.d",
		} {
			c.addText(path, "x")
		}
		return c
	}
	base := fill()
	base.cleanBase()
	want := []string{"etc/keep", "etc/machine-id", "etc/passwd", "etc/shadow", "etc/ssh/sshd_config", "var/lib/dpkg/info/a.list", "var/lib/dpkg/status"}
	if diff := cmp.Diff(want, paths(base.root)); diff != "" {
		t.Error(diff)
	}
	if n := base.root.Lookup("etc/machine-id"); n.Size != 0 {
		t.Error("the machine has an identity")
	}
	for _, dir := range []string{"dev", "proc", "run", "tmp", "var/log/a", "var/cache/x"} {
		if base.root.Lookup(dir) == nil {
			t.Errorf("the directory %s is gone", dir)
		}
	}
	over := fill()
	over.cleanOver()
	if diff := cmp.Diff([]string{"etc/keep", "etc/ssh/sshd_config", "var/lib/dpkg/info/a.list"}, paths(over.root)); diff != "" {
		t.Error(diff)
	}
}

func TestPruneEqual(t *testing.T) {
	make := func(text string, mtime int64, mode uint16) *content {
		c := &content{root: tree.NewDir(0o755)}
		c.addText("etc/a", text)
		c.addText("etc/same", "s")
		c.add("etc/d", tree.NewDir(mode))
		for _, n := range c.root.Walk() {
			n.Mtime.Sec = mtime
		}
		return c
	}
	upper, base := make("new", 200, 0o700), make("old", 100, 0o755)
	upper.addText("only/here", "h")
	pruneEqual(upper.root, base.root, func(a, b *tree.Node) bool { return string(a.Inline) == string(b.Inline) })
	if diff := cmp.Diff([]string{"etc/a", "only/here"}, paths(upper.root)); diff != "" {
		t.Error(diff)
	}
	if upper.root.Lookup("etc").Mtime.Sec != 100 || upper.root.Lookup("etc/d") == nil || upper.root.Lookup("etc/d").Mtime.Sec != 200 {
		t.Error("the directories' attributes are wrong")
	}
	if upper.root.Lookup("etc/same") != nil {
		t.Error("an equal file stayed")
	}
}

func TestEpoch(t *testing.T) {
	root := tree.NewDir(0o755)
	root.Mtime = tree.Time{Sec: 500}
	old, young, built := &tree.Node{Kind: tree.Regular, Mtime: tree.Time{Sec: 100, Nsec: 7}}, &tree.Node{Kind: tree.Regular, Mtime: tree.Time{Sec: 300}}, &tree.Node{Kind: tree.Regular, Mtime: tree.Time{Sec: 900}}
	root.SetChild("old", old)
	root.SetChild("young", young)
	root.SetChild("built", built)
	if got := newestBefore(root, time.Unix(400, 0)); got.Unix() != 300 {
		t.Errorf("the epoch is %d", got.Unix())
	}
	if got := newestBefore(root, time.Unix(50, 0)); !got.Equal(DefaultEpoch) {
		t.Errorf("the epoch is %s", got)
	}
	clamp(root, time.Unix(300, 0))
	if old.Mtime != (tree.Time{Sec: 100}) || young.Mtime.Sec != 300 || built.Mtime.Sec != 300 {
		t.Errorf("%v %v %v", old.Mtime, young.Mtime, built.Mtime)
	}
}

func TestExplain(t *testing.T) {
	b := &builder{Options: Options{Suite: "bookworm", WorkDir: "/w"}}
	for _, test := range []struct {
		output string
		kind   fault.Kind
		area   fault.Area
		want   string
	}{
		{"I: x\nE: Unable to locate package nginxx\nE: apt-get failed\n", fault.Refuse, fault.Input, "there is no package nginxx in Debian bookworm"},
		{"E: Version '9' for 'nginx' was not found\n", fault.Refuse, fault.Input, "no version '9' for 'nginx' in"},
		{"E: Package 'x' has no installation candidate\n", fault.Refuse, fault.Input, "no package x in"},
		{"Err:1 http://m bookworm InRelease\n  Temporary failure resolving 'm'\nE: Unable to locate", fault.Retry, fault.Platform, ""},
		{"W: Failed to fetch http://127.0.0.1:1/d  Could not connect to 127.0.0.1:1 (127.0.0.1).\n", fault.Retry, fault.Platform, "can't be reached: Could not connect to 127.0.0.1:1"},
		{"E: The repository 'http://m nosuch Release' does not have a Release file.\n", fault.Refuse, fault.Input, "no such suite: http://m nosuch Release"},
		{"W: GPG error: NO_PUBKEY 0123\nE: The repository 'x InRelease' is not signed.\n", fault.Refuse, fault.Verify, "NO_PUBKEY 0123"},
		{"tar: write: No space left on device\n", fault.Retry, fault.Mount, "the disk is full"},
		{"The following packages have unmet dependencies:\n a : Depends: b (>= 2)\nE: Unable to correct\n", fault.Refuse, fault.Input, "a : Depends: b (>= 2)"},
		{"mount: root: wrong fs type, bad option, bad superblock on overlay, missing codepage\n", fault.Refuse, fault.Input, "/w can't be the upper layer"},
		{"dpkg: error processing package foo (--configure):\n", fault.Broken, fault.General, "package foo can't be installed"},
		{"E: something \x1b[31m new\n", fault.Broken, fault.General, "something"},
		{"nothing that is known\n", fault.Broken, fault.General, "nothing that is known"},
		{"", fault.Broken, fault.General, "install packages"},
	} {
		err := b.explain(test.output)
		if test.want == "" {
			test.want = "Temporary failure resolving 'm'"
		}
		if !strings.Contains(err.Error(), test.want) || fault.KindOf(err) != test.kind || fault.AreaOf(err) != test.area || fault.HintOf(err) == "" {
			t.Errorf("%q: %v (%s, area %d)", test.output, err, fault.KindOf(err), fault.AreaOf(err))
		}
	}
}

func TestTailIsBounded(t *testing.T) {
	kept := &tail{}
	for range 100 {
		if _, err := kept.Write([]byte(strings.Repeat("x", 64<<10))); err != nil {
			t.Fatal(err)
		}
	}
	if n := kept.buf.Len(); n > 3*tailMax {
		t.Errorf("%d bytes are kept", n)
	}
}

func TestScanStaysOnOneFileSystem(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"srv/": ""})
	if err := unix.Mount("tmpfs", filepath.Join(dir, "srv"), "tmpfs", 0, "size=1m"); err != nil {
		oracle.Missing(t, "a tmpfs can't be mounted here: "+err.Error())
	}
	defer unix.Unmount(filepath.Join(dir, "srv"), 0) //nolint:errcheck // the test has failed if this does
	if _, err := scan(dir, false); err == nil || !strings.Contains(err.Error(), "srv is another file system") || fault.KindOf(err) != fault.Refuse {
		t.Errorf("got %v", err)
	}
}

func FuzzParseStanzas(f *testing.F) {
	f.Add(statusText)
	f.Add("Types: deb\nURIs: a b\nSuites: c\n x\n\n#\n : \n")
	f.Add("deb [a=b signed-by=x] http://m s main\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range parseStanzas(text) {
			if len(s.fields) == 0 || len(s.text) > len(text)+1 {
				t.Fatalf("%+v", s)
			}
		}
		for _, s := range append(parseDeb822(text), parseOneLine(text)...) {
			_ = s.line("k")
		}
		_, _ = installed(text)
		_ = sysusers(text, text, text+"\na:x:1:1:::\n", text+"\na:x:1:a\n")
	})
}
