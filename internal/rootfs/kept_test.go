package rootfs

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	privateKey = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB\n-----END OPENSSH PRIVATE KEY-----\n"
	publicKey  = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ root@node\n"
)

// TestKeptFiles goes through the life of a node whose /etc is ephemeral.
func TestKeptFiles(t *testing.T) {
	n := newNode(t)
	image := n.image(map[string]string{"etc/ssh/sshd_config": "x", "etc/hostname": "image\n", "etc/machine-id": ""})
	r := n.boot(image, nil)
	n.wantRemarks()
	id := r.read("etc/machine-id")
	if checkMachineID([]byte(id)) != nil || id[12] != '4' {
		t.Errorf("machine ID %q", id)
	}
	if got := r.read("etc/hostname"); got != "image\n" {
		t.Errorf("host name %q", got)
	}
	if saved, err := r.save(); err != nil || len(saved) != 0 {
		t.Errorf("saved %v, %v, of what is unchanged", saved, err)
	}
	r.write("etc/ssh/ssh_host_ed25519_key", privateKey)
	r.write("etc/ssh/ssh_host_ed25519_key.pub", publicKey)
	r.write("etc/ssh/ssh_host_rsa_key", privateKey[:60]) // is being written
	r.write("etc/hostname", "node-1\n")
	if saved, err := r.save(); err != nil || !slices.Equal(saved, []string{"hostname", "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"}) {
		t.Errorf("saved %v, %v", saved, err)
	}
	if saved, err := r.save(); err != nil || len(saved) != 0 {
		t.Errorf("saved %v, %v, twice", saved, err)
	}
	r.shutDown()

	// Another image, which has a key of its own under one of the names.
	r = n.boot(n.image(map[string]string{"etc/ssh/ssh_host_ed25519_key.pub": "-> /etc/hostname", "etc/ssh/ssh_host_ed25519_key": "of the image", "etc/hostname": "image\n"}), nil)
	n.wantRemarks()
	for path, want := range map[string]string{
		"machine-id": "0444 " + id, "hostname": "0644 node-1\n",
		"ssh/ssh_host_ed25519_key": "0600 " + privateKey, "ssh/ssh_host_ed25519_key.pub": "0644 " + publicKey,
	} {
		info, err := os.Lstat(r.in("etc/" + path))
		must(t, err)
		if got := "0" + modeOf(info) + " " + r.read("etc/"+path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	r.shutDown()

	r = n.boot(n.image(map[string]string{"etc/": ""}), nil)
	n.wantRemarks()
	if r.read("etc/machine-id") != id || !strings.HasPrefix(r.read("etc/ssh/ssh_host_ed25519_key"), "error") {
		t.Error("an image without ssh")
	}
	r.shutDown()
}

func modeOf(info fs.FileInfo) string {
	if !info.Mode().IsRegular() {
		return info.Mode().String()
	}
	const digits = "01234567"
	p := info.Mode().Perm()
	return string([]byte{digits[p>>6&7], digits[p>>3&7], digits[p&7]})
}

func (r *running) save() ([]string, error) {
	return Save(r.at, r.n.store.Path(), r.Facts().Shipped)
}

// TestKeptFilesAndPersistentEtc has the local changes win: they are newer.
func TestKeptFilesAndPersistentEtc(t *testing.T) {
	n := newNode(t)
	image := n.image(map[string]string{"etc/hostname": "image\n"})
	r := n.boot(image, persistent)
	id := r.read("etc/machine-id")
	r.write("etc/hostname", "first\n")
	_, err := r.save()
	must(t, err)
	r.write("etc/hostname", "second\n") // and the power goes before it is saved
	must(t, os.Remove(r.in("etc/machine-id")))
	r.shutDown()

	r = n.boot(image, persistent)
	n.wantRemarks()
	if got := r.read("etc/hostname"); got != "second\n" {
		t.Errorf("host name %q", got)
	}
	if got := r.read("etc/machine-id"); got != id {
		t.Errorf("machine ID %q, was %q", got, id)
	}
	if saved, err := r.save(); err != nil || !slices.Equal(saved, []string{"hostname"}) {
		t.Errorf("saved %v, %v", saved, err)
	}
	// Someone emptied it, and what was kept is gone: the node gets an ID all the same.
	must(t, errors.Join(os.Remove(r.in("etc/machine-id")), os.WriteFile(r.in("etc/machine-id"), nil, 0o444)))
	must(t, os.RemoveAll(filepath.Join(n.store.Path(), keptName)))
	r.shutDown()
	r = n.boot(image, persistent)
	other := r.read("etc/machine-id")
	if checkMachineID([]byte(other)) != nil {
		t.Errorf("machine ID %q", other)
	}
	// One that the local changes have is kept.
	must(t, os.RemoveAll(filepath.Join(n.store.Path(), keptName)))
	r.shutDown()
	r = n.boot(image, persistent)
	if got := r.read("etc/machine-id"); got != other {
		t.Errorf("machine ID %q, was %q", got, other)
	}
	r.shutDown()
}

func TestDamagedKeptFile(t *testing.T) {
	n := newNode(t)
	image := n.image(map[string]string{"etc/": ""})
	n.boot(image, nil).shutDown()
	kept := filepath.Join(n.store.Path(), keptName)
	must(t, os.WriteFile(filepath.Join(kept, machineIDName), []byte("short"), 0o600))
	must(t, os.Symlink("/etc/passwd", filepath.Join(kept, hostNameName)))
	r := n.boot(image, nil)
	n.wantRemarks("the kept files can't all be read")
	if checkMachineID([]byte(r.read("etc/machine-id"))) != nil {
		t.Error("no machine ID")
	}
	if _, err := os.Lstat(r.in("etc/hostname")); err == nil {
		t.Error("a link was followed")
	}
	r.shutDown()
}

// TestKeptFileThatCantBeRead is not one that is gone: the node gets an ID for this boot, and its own again
// once the disk gives it.
func TestKeptFileThatCantBeRead(t *testing.T) {
	n := newNode(t)
	image := n.image(map[string]string{"etc/": ""})
	r := n.boot(image, nil)
	id := r.read("etc/machine-id")
	r.shutDown()
	file := filepath.Join(n.store.Path(), keptName, machineIDName)
	must(t, os.Symlink("/etc/passwd", filepath.Join(n.store.Path(), keptName, hostNameName)))
	// A regular file whose first bytes nobody can read.
	must(t, unix.Mount("/proc/self/mem", file, "", unix.MS_BIND, ""))
	mounted := true
	unmount := func() {
		if mounted {
			must(t, unix.Unmount(file, unix.MNT_DETACH))
		}
		mounted = false
	}
	defer unmount()
	r = n.boot(image, func(s *Spec) {
		s.Hook = func(op string) error {
			if strings.Contains(op, "kept-machine-id") {
				t.Errorf("%s: the kept ID is replaced", op)
			}
			return nil
		}
	})
	n.wantRemarks("the kept files can't all be read", "another one at the next boot")
	if got := r.read("etc/machine-id"); got == id || checkMachineID([]byte(got)) != nil {
		t.Errorf("machine ID %q", got)
	}
	if saved, err := r.save(); err != nil || len(saved) != 0 {
		t.Errorf("saved %v, %v", saved, err)
	}
	unmount()
	if saved, err := r.save(); err != nil || len(saved) != 0 {
		t.Errorf("saved %v, %v, once it can be read", saved, err)
	}
	r.shutDown()
	r = n.boot(image, nil)
	n.wantRemarks("the kept files can't all be read")
	if got := r.read("etc/machine-id"); got != id {
		t.Errorf("machine ID %q, was %q", got, id)
	}
	r.shutDown()
}

// TestKeptFilesAfterAPowerCut: a local change that is no whole file isn't newer than the kept one.
func TestKeptFilesAfterAPowerCut(t *testing.T) {
	n := newNode(t)
	image := n.image(map[string]string{"etc/ssh/sshd_config": "x"})
	r := n.boot(image, persistent)
	r.write("etc/ssh/ssh_host_ed25519_key", privateKey)
	r.write("etc/ssh/ssh_host_ed25519_key.pub", publicKey)
	_, err := r.save()
	must(t, err)
	r.write("etc/ssh/ssh_host_ed25519_key", "")
	r.write("etc/ssh/ssh_host_ed25519_key.pub", publicKey[:20])
	r.shutDown()
	r = n.boot(image, persistent)
	n.wantRemarks()
	if a, b := r.read("etc/ssh/ssh_host_ed25519_key"), r.read("etc/ssh/ssh_host_ed25519_key.pub"); a != privateKey || b != publicKey {
		t.Errorf("%q, %q", a, b)
	}
	r.shutDown()
}

// TestSaveLeavesAlone keeps nothing that isn't a whole file of its own.
func TestSaveLeavesAlone(t *testing.T) {
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "key"), []byte(privateKey), 0o600))
	for name, spoil := range map[string]func(etc string) error{
		"a link to a file": func(etc string) error { return os.Symlink(filepath.Join(outside, "key"), etc+"/ssh/ssh_host_rsa_key") },
		"a link inside": func(etc string) error {
			return errors.Join(os.WriteFile(etc+"/key", []byte(privateKey), 0o600), os.Symlink("../key", etc+"/ssh/ssh_host_rsa_key"))
		},
		"a directory is a link": func(etc string) error {
			return errors.Join(os.Remove(etc+"/ssh"), os.Symlink(outside, etc+"/ssh"), os.WriteFile(outside+"/ssh_host_rsa_key", []byte(privateKey), 0o600))
		},
		"a pipe":      func(etc string) error { return unix.Mkfifo(etc+"/ssh/ssh_host_rsa_key", 0o600) },
		"a directory": func(etc string) error { return os.Mkdir(etc+"/ssh/ssh_host_rsa_key", 0o700) },
		"too long": func(etc string) error {
			return os.WriteFile(etc+"/ssh/ssh_host_rsa_key", []byte(privateKey+strings.Repeat("\n", hostKeyMax)), 0o600)
		},
		"another name":  func(etc string) error { return os.WriteFile(etc+"/ssh/ssh_host_../x_key", []byte(privateKey), 0o600) },
		"no machine ID": func(etc string) error { return os.WriteFile(etc+"/machine-id", []byte("uninitialized\n"), 0o444) },
	} {
		t.Run(name, func(t *testing.T) {
			root, state := t.TempDir(), t.TempDir()
			must(t, os.MkdirAll(filepath.Join(root, "etc/ssh"), 0o755))
			if err := spoil(filepath.Join(root, "etc")); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if saved, err := Save(root, state, nil); err != nil || len(saved) != 0 {
				t.Errorf("saved %v, %v", saved, err)
			}
		})
	}
	if _, err := Save(t.TempDir(), t.TempDir(), nil); err == nil {
		t.Error("a root without /etc")
	}
}

func TestKeptFileChecks(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		data string
		ok   bool
	}{
		"machine ID":             {"machine-id", "0123456789abcdef0123456789abcdef\n", true},
		"without newline":        {"machine-id", "0123456789abcdef0123456789abcdef", false},
		"upper case":             {"machine-id", "0123456789ABCDEF0123456789abcdef\n", false},
		"all zero":               {"machine-id", strings.Repeat("0", 32) + "\n", false},
		"not initialized":        {"machine-id", "uninitialized\n", false},
		"host name":              {"hostname", "# named by hand\nweb-1.example.org\n", true},
		"only a comment":         {"hostname", "# x\n", false},
		"control characters":     {"hostname", "a\x1b[2Jb\n", false},
		"private key":            {"ssh_host_rsa_key", privateKey, true},
		"half a private key":     {"ssh_host_rsa_key", privateKey[:80], false},
		"a public one":           {"ssh_host_rsa_key", publicKey, false},
		"a certificate":          {"ssh_host_rsa_key", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", false},
		"two private keys":       {"ssh_host_rsa_key", privateKey + privateKey, false},
		"public key":             {"ssh_host_rsa_key.pub", publicKey, true},
		"half a public key":      {"ssh_host_rsa_key.pub", publicKey[:20], false},
		"a public key and more":  {"ssh_host_rsa_key.pub", publicKey + publicKey, false},
		"a public key in quotes": {"ssh_host_rsa_key.pub", "ssh-rsa \"AAAA\"\n", false},
	} {
		f, ok := keptFileOf(c.file)
		if !ok {
			t.Fatalf("%s is not a file to keep", c.file)
		}
		if err := f.check([]byte(c.data)); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"passwd", "ssh_host_key", "ssh_host_.._key", "ssh_host_a/b_key", "ssh_host_a_key.pub.pub", ".tmp-ssh_host_rsa_key", "../hostname"} {
		if _, ok := keptFileOf(name); ok {
			t.Errorf("%s is kept", name)
		}
	}
}

func FuzzKeptFileChecks(f *testing.F) {
	for _, name := range []string{"machine-id", "hostname", "ssh_host_rsa_key", "ssh_host_rsa_key.pub"} {
		for _, seed := range []string{privateKey, publicKey, "node\n", "0123456789abcdef0123456789abcdef\n", "# \n\n", "-----BEGIN"} {
			f.Add(name, []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		file, ok := keptFileOf(name)
		if !ok {
			return
		}
		if strings.ContainsAny(name, "/\x00") || file.perm&0o133 != 0 {
			t.Fatalf("name %q, mode %o", name, file.perm)
		}
		if file.check(data) == nil && len(data) == 0 {
			t.Fatalf("an empty %s is kept", name)
		}
	})
}

func TestKeysOfShipped(t *testing.T) {
	n := newNode(t)
	r := n.boot(n.image(map[string]string{"etc/ssh/ssh_host_rsa_key": privateKey, "etc/hostname": "image\n"}), nil)
	if got := slices.Sorted(maps.Keys(r.Facts().Shipped)); !slices.Equal(got, []string{"hostname", "ssh_host_rsa_key"}) {
		t.Errorf("shipped: %q", got)
	}
	r.shutDown()
}
