package modulebuild

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/tree"
)

// These tests install real packages with the machine's own apt and dpkg, from a repository in a
// directory, over a base of some 10 MB that holds just what dpkg needs. They need no network.

// programs are what dpkg and the packages' scripts below run inside the base.
var programs = []string{
	"/bin/sh", "/usr/bin/dpkg", "/usr/bin/dpkg-deb", "/usr/bin/dpkg-split", "/usr/bin/dpkg-query", "/usr/bin/tar", "/usr/bin/rm", "/usr/bin/diff",
	"/usr/sbin/ldconfig", "/usr/sbin/start-stop-daemon", "/usr/bin/touch", "/usr/bin/chmod", "/usr/bin/cat", "/usr/bin/ln", "/usr/bin/mv",
}

func needDebian(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		oracle.Missing(t, "unpacking packages takes root's rights")
	}
	for _, name := range []string{"apt-get", "dpkg", "dpkg-deb", "ldd", "unshare"} {
		if _, err := exec.LookPath(name); err != nil {
			oracle.Missing(t, err.Error()+"; run scripts/setup")
		}
	}
}

// miniBase builds a module with a minimal dpkg system out of this machine's files.
func miniBase(t *testing.T) string {
	t.Helper()
	return miniBaseWith(t)
}

// miniBaseWith is miniBase with more programs.
func miniBaseWith(t *testing.T, more ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		write(t, root, map[string]string{"usr/" + dir + "/": ""})
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	for _, program := range append(slices.Clone(programs), more...) {
		copyProgram(t, root, program)
	}
	write(t, root, map[string]string{
		"dev/": "", "proc/": "", "sys/": "", "run/": "", "tmp/": "", "var/log/": "", "var/lib/dpkg/info/": "", "var/lib/dpkg/updates/": "", "var/lib/dpkg/triggers/": "",
		"var/lib/dpkg/status": "Package: present\nStatus: install ok installed\nVersion: 1\nArchitecture: all\nMaintainer: m\nDescription: d\n\n",
		"etc/passwd":          "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/base.conf": "base\n", "etc/doomed": "d\n", "opt/full/file": "f",
	})
	out := filepath.Join(t.TempDir(), "base")
	mustBuild(t, Options{
		Manifest: []byte("schema_version: 1\nname: mini-base\nprotected_spec: [/etc/passwd]\n"), FromDir: root, KeepAttributes: true, Layout: out,
	})
	return out
}

// copyProgram copies a program with its libraries, to where its path leads on this machine.
func copyProgram(t *testing.T, root, program string) {
	t.Helper()
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		t.Skipf("ldd %s: %v", program, err)
	}
	files := []string{program}
	for _, field := range strings.Fields(string(out)) {
		if strings.HasPrefix(field, "/") {
			files = append(files, field)
		}
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(root, file) // /lib is a symlink to usr/lib there, too
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// repository makes packages and an index of them; it returns a line for sources.list.
func repository(t *testing.T, packages map[string]map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	var index strings.Builder
	for name, files := range packages {
		src := t.TempDir()
		control := "Package: " + name + "\nVersion: 1.0\nArchitecture: all\nMaintainer: m <m@example.org>\nDescription: a test\n" + files["DEPENDS"]
		write(t, src, map[string]string{"DEBIAN/control": control})
		for path, text := range files {
			if path == "DEPENDS" {
				continue
			}
			write(t, src, map[string]string{path: text})
			if strings.HasPrefix(path, "DEBIAN/p") {
				if err := os.Chmod(filepath.Join(src, path), 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
		deb := filepath.Join(dir, name+".deb")
		cmd := exec.Command("dpkg-deb", "--root-owner-group", "--build", src, deb)
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1500000000")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		b, err := os.ReadFile(deb)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&index, "%sFilename: ./%s.deb\nSize: %d\nSHA256: %x\n\n", control, name, len(b), sha256.Sum256(b))
	}
	write(t, dir, map[string]string{"Packages": index.String()})
	return "deb [trusted=yes] copy:" + dir + " ./"
}

const webManifest = "schema_version: 1\nname: web\npackage_spec: [web]\n"

func TestInstall(t *testing.T) {
	needDebian(t)
	base := miniBase(t)
	repo := repository(t, map[string]map[string]string{
		"web": {
			"DEPENDS": "Depends: web-data, present\n", "etc/web.conf": "w\n", "usr/bin/web": "#!/bin/sh\n", "usr/share/man/man1/web.1": "m", "usr/share/doc/web/copyright": "c", "usr/share/doc/web/README": "r",
			"DEBIAN/postinst": `#!/bin/sh
set -e
echo 'web:x:101:101::/srv/www:/bin/sh' >> /etc/passwd
echo 'web:x:101:' >> /etc/group
mkdir_() { :; }
echo made > /etc/made-by-postinst
touch /etc/base.conf /var/log/web.log /run/web.pid /tmp/left /etc/ld.so.cache
rm /etc/doomed
rm -r /opt/full
/usr/sbin/policy-rc.d && echo "policy-rc.d lets daemons start" >&2 && exit 1
cat /proc/net/dev > /etc/networks-seen
exit 0
`,
		},
		"web-data":  {"srv/www/index.html": strings.Repeat("<p>", 100)},
		"unrelated": {"usr/bin/no": "n"},
	})
	build := func() (*Result, *tree.Node) {
		out := filepath.Join(t.TempDir(), "l")
		r := mustBuild(t, Options{Manifest: []byte(webManifest), Bases: []string{base}, Layout: out, Mirrors: []string{repo}, Log: &testLog{t}})
		_, root := pull(t, out)
		return r, root
	}
	r, root := build()
	want := []string{
		"etc/made-by-postinst", "etc/networks-seen", "etc/web.conf", "srv/www/index.html", "usr/bin/web", "usr/lib/powernode/modules/web/manifest.yaml",
		"usr/lib/sysusers.d/powernode-web.conf", "usr/share/doc/web/copyright",
		"var/lib/dpkg/info/web-data.list", "var/lib/dpkg/info/web.list", "var/lib/dpkg/info/web.postinst", "var/lib/dpkg/status.d/web", "var/lib/dpkg/status.d/web-data",
	}
	var got []string
	for _, path := range paths(root) {
		if !strings.HasSuffix(path, ".md5sums") && path != "var/lib/dpkg/info/format" && path != "var/lib/dpkg/diversions" && path != "var/lib/dpkg/statoverride" && path != "var/lib/dpkg/arch" {
			got = append(got, path)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if seen := root.Lookup("etc/networks-seen"); seen != nil && strings.Count(string(seen.Inline), "\n") > 3 {
		t.Errorf("the scripts saw a network: %s", seen.Inline)
	}
	if diff := cmp.Diff([]Package{{"web", "1.0", "all"}, {"web-data", "1.0", "all"}}, r.Packages); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"g web 101", `u web 101:101 - "/srv/www" "/bin/sh"`}, r.Users); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"/etc/doomed", "/opt/full"}, r.Removed); diff != "" {
		t.Error(diff)
	}
	if r.Epoch.Unix() != 1500000000 || r.Architecture != runtime.GOARCH {
		t.Errorf("epoch %s, architecture %s", r.Epoch, r.Architecture)
	}
	for path, n := range root.Walk() {
		if path != "" && n.Mtime.Sec > 1600000000 {
			t.Errorf("%s is from the time of the build", path)
		}
	}
	if again, _ := build(); again.Digest != r.Digest {
		t.Errorf("the same packages gave %s, then %s", r.Digest, again.Digest)
	}
	if b, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(b), "powernode-build") {
		t.Error("a mount is left", err)
	}
}

// A module may stand on a module that stands on a base: dpkg sees the packages of both.
func TestInstallOverTwo(t *testing.T) {
	needDebian(t)
	base, web, top := miniBase(t), filepath.Join(t.TempDir(), "web"), filepath.Join(t.TempDir(), "top")
	repo := repository(t, map[string]map[string]string{
		"web": {"etc/web.conf": "w\n"},
		"top": {"DEPENDS": "Depends: web\n", "etc/top.conf": "t\n"},
	})
	mustBuild(t, Options{Manifest: []byte(webManifest), Bases: []string{base}, Layout: web, Mirrors: []string{repo}})
	o := Options{Manifest: []byte("schema_version: 1\nname: top\npackage_spec: [top]\n"), Bases: []string{base, web}, Layout: top, Mirrors: []string{repo}}
	if diff := cmp.Diff([]Package{{"top", "1.0", "all"}}, mustBuild(t, o).Packages); diff != "" {
		t.Error(diff)
	}
	o.Manifest, o.Layout, o.Version, o.WorkDir = []byte(webManifest), filepath.Join(t.TempDir(), "l"), "1", t.TempDir()
	o.Bases = []string{base, top}
	if _, err := Build(context.Background(), o); err != nil {
		t.Errorf("without web below it: %v", err)
	}
}

// With many packages, apt speaks to dpkg in other ways.
func TestInstallMany(t *testing.T) {
	needDebian(t)
	packages := map[string]map[string]string{"web": {"etc/web.conf": "w\n"}}
	var depends []string
	for i := range 40 {
		name := fmt.Sprintf("web-part-with-a-long-name-%02d", i)
		depends = append(depends, name)
		packages[name] = map[string]string{"etc/" + name: "p"}
	}
	packages["web"]["DEPENDS"] = "Depends: " + strings.Join(depends, ", ") + "\n"
	r := mustBuild(t, Options{Manifest: []byte(webManifest), Bases: []string{miniBase(t)}, Layout: filepath.Join(t.TempDir(), "l"), Mirrors: []string{repository(t, packages)}})
	if len(r.Packages) != 41 {
		t.Errorf("%d packages", len(r.Packages))
	}
}

func TestInstallRefused(t *testing.T) {
	needDebian(t)
	base := miniBase(t)
	repo := repository(t, map[string]map[string]string{
		"web":    {"etc/web.conf": "w\n"},
		"broken": {"etc/b": "b", "DEBIAN/postinst": "#!/bin/sh\nexit 1\n"},
		"picky":  {"DEPENDS": "Depends: nowhere\n", "etc/p": "p"},
	})
	plain := filepath.Join(t.TempDir(), "plain")
	files := t.TempDir()
	write(t, files, map[string]string{"etc/x": "x"})
	mustBuild(t, Options{Manifest: []byte(siteManifest), FromDir: files, Layout: plain})
	spec := func(packages string) string {
		return "schema_version: 1\nname: web\npackage_spec: [" + packages + "]\n"
	}
	tests := []struct {
		name, manifest string
		change         func(*Options)
		kind           fault.Kind
		want           string
	}{
		{"an unknown package", spec("nginxx"), func(*Options) {}, fault.Refuse, "there is no package nginxx in Debian bookworm"},
		{"an unknown version", spec("web=9"), func(*Options) {}, fault.Refuse, "no version '9' for 'web'"},
		{"a package that doesn't fit", spec("picky"), func(*Options) {}, fault.Refuse, "picky : Depends: nowhere"},
		{"a package that fails", spec("broken"), func(*Options) {}, fault.Broken, "package broken can't be installed"},
		{"nothing new", spec("present"), func(*Options) {}, fault.Refuse, "the base has all of its packages already"},
		{"no mirror", spec("web"), func(o *Options) { o.Mirrors = []string{"http://127.0.0.1:1/debian"} }, fault.Retry, "the package mirror can't be reached"},
		{"no mirror for a whole system", spec("web"), func(o *Options) {
			if _, err := exec.LookPath("mmdebstrap"); err != nil {
				oracle.Missing(t, err.Error()+"; run scripts/setup")
			}
			o.Bases, o.Mirrors = nil, []string{"http://127.0.0.1:1/debian"}
		}, fault.Retry, "the package mirror can't be reached"},
		{"no base", spec("web"), func(o *Options) { o.Bases = []string{"/nonexistent"} }, fault.Refuse, "open OCI layout /nonexistent"},
		{"a base that is no system", spec("web"), func(o *Options) { o.Bases = []string{plain} }, fault.Refuse, "it is no Debian system"},
		{"a base twice", spec("web"), func(o *Options) { o.Bases = []string{base, base} }, fault.Refuse, "module mini-base is there twice"},
		{"a base for another machine", spec("web"), func(o *Options) { o.Architecture = "riscv64" }, fault.Refuse, "riscv64"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := Options{Manifest: []byte(test.manifest), Version: "1", Bases: []string{base}, Layout: filepath.Join(t.TempDir(), "l"), Mirrors: []string{repo}, WorkDir: t.TempDir(), Log: &testLog{t}}
			test.change(&o)
			_, err := Build(context.Background(), o)
			if err == nil {
				t.Fatal("built")
			}
			if text := err.Error(); !strings.Contains(text, test.want) || fault.KindOf(err) != test.kind || fault.HintOf(err) == "" || strings.Contains(text, "\n") {
				t.Errorf("%v (%s, hint %q), want %q", err, fault.KindOf(err), fault.HintOf(err), test.want)
			}
			if entries, _ := os.ReadDir(o.WorkDir); len(entries) != 0 {
				t.Errorf("debris: %v", entries)
			}
			if _, err := os.Stat(o.Layout); err == nil {
				t.Error("there is a layout")
			}
		})
	}
}

// A build that is cancelled ends the scripts that it runs.
func TestInstallCancelled(t *testing.T) {
	needDebian(t)
	base := miniBase(t)
	repo := repository(t, map[string]map[string]string{"web": {"DEBIAN/postinst": "#!/bin/sh\necho postinst runs\ncat < /dev/zero > /dev/null\n"}})
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := errors.New("stop")
	o := Options{Manifest: []byte(webManifest), Version: "1", Bases: []string{base}, Layout: filepath.Join(t.TempDir(), "l"), Mirrors: []string{repo}, WorkDir: t.TempDir()}
	o.Log = writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "postinst runs") {
			cancel(stop)
		}
		return len(p), nil
	})
	if _, err := Build(ctx, o); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	if entries, _ := os.ReadDir(o.WorkDir); len(entries) != 0 {
		t.Errorf("debris: %v", entries)
	}
}

func TestFullDisk(t *testing.T) {
	needDebian(t)
	base := miniBase(t)
	small := t.TempDir()
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=4m"); err != nil {
		oracle.Missing(t, "a tmpfs can't be mounted here: "+err.Error())
	}
	defer unix.Unmount(small, 0) //nolint:errcheck // the test has failed if this does
	_, err := Build(context.Background(), Options{Manifest: []byte(webManifest), Version: "1", Bases: []string{base}, Layout: filepath.Join(t.TempDir(), "l"), Mirrors: []string{repository(t, nil)}, WorkDir: small})
	if err == nil || !strings.Contains(err.Error(), "the disk is full") || fault.AreaOf(err) != fault.Mount || fault.KindOf(err) != fault.Retry {
		t.Errorf("got %v", err)
	}
	if entries, _ := os.ReadDir(small); len(entries) != 0 {
		t.Errorf("debris: %v", entries)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
