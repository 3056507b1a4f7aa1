package modulebuild

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/tree"
)

// link makes a symlink below dir with the directories above it.
func link(t *testing.T, dir, path, target string) {
	t.Helper()
	at := filepath.Join(dir, path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, at); err != nil {
		t.Fatal(err)
	}
}

func TestCheckPlaces(t *testing.T) {
	tests := []struct {
		path string
		kind tree.Kind
		want string
	}{
		{"usr/sbin/policy-rc.d", tree.Symlink, "usr/sbin/policy-rc.d is a symlink, and has to be a regular file"},
		{"usr/sbin/policy-rc.d", tree.FIFO, "usr/sbin/policy-rc.d is a FIFO, and has to be a regular file"},
		{"usr/sbin/policy-rc.d", tree.Directory, "usr/sbin/policy-rc.d is a directory, and has to be a regular file"},
		{"usr/sbin", tree.Symlink, "usr/sbin is a symlink, and has to be a directory"},
		{"usr", tree.Symlink, "usr is a symlink, and has to be a directory"},
		{"run", tree.Symlink, "run is a symlink, and has to be a directory"},
		{"dev", tree.Symlink, "dev is a symlink"},
		{"proc", tree.Regular, "proc is a regular file, and has to be a directory"},
		{"tmp", tree.Symlink, "tmp is a symlink"},
		{"etc", tree.Symlink, "etc is a symlink"},
		{"etc/passwd", tree.Symlink, "etc/passwd is a symlink"},
		{"etc/group", tree.CharDevice, "etc/group is a device"},
		{"var/lib", tree.Symlink, "var/lib is a symlink"},
		{"var/lib/dpkg", tree.Symlink, "var/lib/dpkg is a symlink, and has to be a directory"},
		{"var/lib/dpkg/status", tree.Symlink, "var/lib/dpkg/status is a symlink"},
		{"var/lib/dpkg/status.d", tree.Symlink, "var/lib/dpkg/status.d is a symlink"},
		{"usr/lib/sysusers.d", tree.Symlink, "usr/lib/sysusers.d is a symlink"},
		{"usr/sbin/policy-rc.d", tree.Regular, ""},
		{"run", tree.Directory, ""},
		{"bin", tree.Symlink, ""},
		{"var/run", tree.Symlink, ""},
		{"etc/alternatives/x", tree.Symlink, ""},
	}
	for _, test := range tests {
		c := &content{root: tree.NewDir(0o755)}
		c.add(test.path, &tree.Node{Kind: test.kind})
		err := checkPlaces(c.root, "read the base", "hint")
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.path, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), "read the base: "+test.want) || fault.KindOf(err) != fault.Refuse):
			t.Errorf("%s: got %v, want %q", test.path, err, test.want)
		}
	}
}

// A base whose links lead out of it is refused before anything is written.
func TestBaseLeadsOut(t *testing.T) {
	needDebian(t)
	const status = "Package: x\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n"
	for _, path := range []string{"usr/sbin/policy-rc.d", "usr/sbin", "run", "dev", "proc", "tmp", "etc", "etc/passwd", "etc/group", "usr/lib/sysusers.d", "var/lib/dpkg", "var/lib", "var/lib/dpkg/status"} {
		t.Run(path, func(t *testing.T) {
			host, root, base := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "base")
			if !strings.HasPrefix("var/lib/dpkg/status", path) {
				write(t, root, map[string]string{"var/lib/dpkg/status": status})
			} else {
				write(t, host, map[string]string{"status": status, "dpkg/status": status})
			}
			write(t, root, map[string]string{"etc-/x": "x"})
			link(t, root, path, filepath.Join(host, "status"))
			if path == "var/lib" || path == "var/lib/dpkg" {
				if err := os.Remove(filepath.Join(root, path)); err != nil {
					t.Fatal(err)
				}
				link(t, root, path, host)
			}
			before := listing(t, host)
			mustBuild(t, Options{Manifest: []byte("schema_version: 1\nname: tricky\n"), FromDir: root, KeepAttributes: true, Layout: base})
			_, err := Build(context.Background(), Options{
				Manifest: []byte(webManifest), Version: "1", Bases: []string{base}, Layout: filepath.Join(t.TempDir(), "l"),
				Mirrors: []string{repository(t, map[string]map[string]string{"web": {"etc/web.conf": "w\n"}})}, WorkDir: t.TempDir(), Log: &testLog{t},
			})
			if err == nil || fault.KindOf(err) != fault.Refuse || fault.HintOf(err) == "" || !strings.Contains(err.Error(), path+" is a symlink") {
				t.Errorf("got %v", err)
			}
			if after := listing(t, host); after != before {
				t.Errorf("the host had %q, and has %q", before, after)
			}
		})
	}
}

// listing names all that is in a directory, with sizes and modes.
func listing(t *testing.T, dir string) string {
	t.Helper()
	c, err := scan(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for path, n := range c.root.Walk() {
		all.WriteString(path + " " + kindName(n.Kind) + " " + string(n.Inline) + "\n")
	}
	return all.String()
}

// What packages or programs of the base make of the accounts' files isn't followed when they are
// read.
func TestAccountsLeadOut(t *testing.T) {
	needDebian(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret:x:0:0::/:/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	base := miniBase(t)
	swap := "#!/bin/sh\nrm /etc/passwd\nln -s " + secret + " /etc/passwd\n"
	build := func(bases ...string) error {
		repo := repository(t, map[string]map[string]string{"web": {"etc/web.conf": "w\n"}, "swap": {"DEBIAN/postinst": "#!/bin/sh\nmv /etc/passwd /etc/p\nexec /bin/sh /etc/swap\n", "etc/swap": strings.Replace(swap, "rm", "test ! -e", 1)}})
		manifest := webManifest
		if len(bases) == 1 {
			manifest = strings.ReplaceAll(webManifest, "[web]", "[swap]")
		}
		_, err := Build(context.Background(), Options{
			Manifest: []byte(manifest), Version: "1", Bases: bases, Layout: filepath.Join(t.TempDir(), "l"),
			Mirrors: []string{repo}, WorkDir: t.TempDir(), Log: &testLog{t},
		})
		return err
	}
	files, sysusers := t.TempDir(), filepath.Join(t.TempDir(), "sysusers")
	write(t, files, map[string]string{"usr/bin/systemd-sysusers": swap, "usr/lib/sysusers.d/powernode-x.conf": "u x\n"})
	if err := os.Chmod(filepath.Join(files, "usr/bin/systemd-sysusers"), 0o755); err != nil {
		t.Fatal(err)
	}
	mustBuild(t, Options{Manifest: []byte("schema_version: 1\nname: x\n"), FromDir: files, KeepAttributes: true, Layout: sysusers})
	if err := build(base, sysusers); err == nil || fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "the base's users and groups can't be read after its systemd-sysusers: ") || !strings.Contains(err.Error(), "etc/passwd") {
		t.Errorf("systemd-sysusers made passwd a link: %v", err)
	}
	if err := build(base); err == nil || fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "read what the packages made: etc/passwd is a symlink") {
		t.Errorf("a package made passwd a link: %v", err)
	}
}

// Programs of the base have its root alone and few rights, whatever they try.
func TestConfined(t *testing.T) {
	needDebian(t)
	host := t.TempDir()
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	const tries = `#!/bin/sh
{
	grep_() { while read -r line; do case $line in CapEff*|CapBnd*|CapInh*|NoNewPrivs*) echo "tried: $line" ;; esac; done; }
	grep_ < /proc/self/status
	echo out > HOST/pwned && echo "tried: wrote to the host by name"
	for process in /proc/[0-9]*; do
		echo out > $process/root/HOST/pwned && echo "tried: wrote to the host through $process"
	done
	cat /proc/1/environ > /dev/null && echo "tried: read the environment of the shell outside"
	echo '|/bin/false' > /proc/sys/kernel/core_pattern && echo "tried: wrote core_pattern"
	echo x > /run/powernode-build/new && echo "tried: wrote to the archives"
	mknod /dev/disk b 8 0 && echo "tried: made a device"
	mknod /disk b 8 0 && echo "tried: made a device in the root"
	mount -t tmpfs none /sys && echo "tried: mounted"
	umount /run && echo "tried: unmounted"
	mount -o remount,rw /proc && echo "tried: remounted"
	chroot /proc/1/root && echo "tried: changed its root"
	echo > /dev/tty && echo "tried: has a terminal"
	true
} 2> /dev/null
`
	base := miniBaseWith(t, "/usr/bin/mknod", "/usr/bin/mount", "/usr/bin/umount", "/usr/sbin/chroot")
	var log strings.Builder
	mustBuild(t, Options{
		Manifest: []byte(webManifest), Bases: []string{base}, Layout: filepath.Join(t.TempDir(), "l"), Log: &log,
		Mirrors: []string{repository(t, map[string]map[string]string{"web": {"etc/web.conf": "w\n", "DEBIAN/postinst": strings.ReplaceAll(tries, "HOST", host)}})},
	})
	var got []string
	for line := range strings.SplitSeq(log.String(), "\n") {
		if tried, ok := strings.CutPrefix(line, "tried: "); ok {
			got = append(got, tried)
		}
	}
	want := []string{"CapInh:\t0000000000000000", "CapEff:\t00000000a00405fb", "CapBnd:\t00000000a00405fb", "NoNewPrivs:\t1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if entries, _ := os.ReadDir(host); len(entries) != 0 {
		t.Errorf("on the host: %v", entries)
	}
	if after, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); string(after) != string(pattern) {
		t.Errorf("core_pattern is %q", after)
		_ = os.WriteFile("/proc/sys/kernel/core_pattern", pattern, 0)
	}
}

// The accounts are read from a root in which anything may have become anything.
func TestCopyAccounts(t *testing.T) {
	root, to := t.TempDir(), t.TempDir()
	write(t, root, map[string]string{"etc/passwd": "p\n"})
	if err := copyAccounts(root, to); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(to, "passwd")); err != nil || string(b) != "p\n" {
		t.Errorf("%q, %v", b, err)
	}
	if err := unix.Mkfifo(filepath.Join(root, "etc/group"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := copyAccounts(root, to); err == nil || !strings.Contains(err.Error(), "etc/group is not a regular file") {
		t.Errorf("a FIFO: %v", err)
	}
	if err := os.Rename(filepath.Join(root, "etc"), filepath.Join(root, "real")); err != nil {
		t.Fatal(err)
	}
	link(t, root, "etc", t.TempDir())
	if err := copyAccounts(root, to); err == nil || !strings.Contains(err.Error(), "escapes") {
		t.Errorf("a link out: %v", err)
	}
}

func TestAptDoesNotMoveDpkgsDatabase(t *testing.T) {
	got := withoutAdminDir([]string{"--admindir", "/outside", "--admindir=/outside", "--force-confold", "--unpack", "/archives/x.deb"})
	if strings.Join(got, " ") != "--force-confold --unpack /archives/x.deb" {
		t.Errorf("%q", got)
	}
}
