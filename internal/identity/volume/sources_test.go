package volume

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/device"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

// machine is a /sys and a /dev with block devices that are files.
type machine struct {
	t   *testing.T
	dir string
}

func (m machine) options() device.Options {
	return device.Options{Sysfs: filepath.Join(m.dir, "sys"), Dev: filepath.Join(m.dir, "dev")}
}

func (m machine) file(path string, content []byte) string {
	m.t.Helper()
	path = filepath.Join(m.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// disk adds a disk; attributes are files of sysfs.
func (m machine) disk(name string, content []byte, attributes ...string) {
	m.t.Helper()
	dir := "sys/devices/pci0/" + name
	m.file(dir+"/uevent", []byte("DEVNAME="+name+"\n"))
	m.file(dir+"/size", fmt.Appendln(nil, max(len(content)/512, 8)))
	for _, a := range attributes {
		key, value, _ := strings.Cut(a, "=")
		m.file(dir+"/"+key, []byte(value))
	}
	if content != nil {
		m.file("dev/"+name, content)
	}
	class := filepath.Join(m.dir, "sys/class/block")
	if err := errors.Join(os.MkdirAll(class, 0o755), os.Symlink(filepath.Join(m.dir, dir), filepath.Join(class, name))); err != nil {
		m.t.Fatal(err)
	}
}

func TestNoCloud(t *testing.T) {
	removable := "removable=1"
	for _, c := range []struct {
		name  string
		disks func(m machine)
		from  string // of the device that it is found on
		err   string
		none  bool
	}{
		{"nothing", func(machine) {}, "", "there is no volume labelled cidata", true},
		{"others only", func(m machine) { m.disk("vda", make([]byte, 1<<20)); m.disk("vdb", image(t, "fat32.img")) }, "", "there is no volume", true},
		{"FAT12", func(m machine) { m.disk("vda", make([]byte, 1<<20)); m.disk("vdb", image(t, "fat12.img")) }, "vdb", "", false},
		{"FAT16 in capitals", func(m machine) { m.disk("vdb", image(t, "fat16.img")) }, "vdb", "", false},
		{"ISO 9660", func(m machine) { m.disk("sr0", image(t, "joliet.iso"), removable) }, "sr0", "", false},
		{"a fixed one before a stick", func(m machine) { m.disk("sda", image(t, "fat12.img"), removable); m.disk("vdb", image(t, "rock.iso")) }, "vdb", "", false},
		{"two sticks", func(m machine) {
			m.disk("sda", image(t, "fat12.img"), removable)
			m.disk("sr0", image(t, "rock.iso"), removable)
		}, "sda", "", false},
		{"two sticks that differ", func(m machine) {
			m.disk("sda", with(t, "fat12.img", "https://p.example", "https://q.example"), removable)
			m.disk("sr0", image(t, "rock.iso"), removable)
		}, "", "several", false},
		{"for another program", func(m machine) {
			m.disk("vda", with(t, "fat12.img", "powernode.instance_uuid", "#!/bin/sh\n#"))
		}, "", "is a script", true},
		{"damaged words", func(m machine) { m.disk("vda", with(t, "fat12.img", "https://p.example", "http:///p.example")) }, "", "vda: platform_url: ", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := machine{t, t.TempDir()}
			c.disks(m)
			found, err := NoCloud{m.options()}.Find(t.Context())
			check(t, found, err, c.from, c.err, c.none)
		})
	}
}

// with returns an image in which one text is replaced by another, which is filled up with spaces to its length.
func with(t *testing.T, name, old, replacement string) []byte {
	t.Helper()
	b := image(t, name)
	replacement += strings.Repeat(" ", max(len(old)-len(replacement), 0))
	out := []byte(strings.ReplaceAll(string(b), old, replacement))
	if len(out) != len(b) || string(out) == string(b) {
		t.Fatalf("%q isn't in %s", old, name)
	}
	return out
}

func check(t *testing.T, found identity.Found, err error, from, want string, none bool) {
	t.Helper()
	if want != "" {
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, identity.ErrNotFound) != none || strings.Contains(err.Error(), token) {
			t.Errorf("%v, want %q", err, want)
		}
		return
	}
	if err != nil || found.InstanceID != uuid || found.Token.Reveal() != token || !strings.Contains(found.Where, "/"+from+":") {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestBoot(t *testing.T) {
	const line = "SERVER=https://p.example"
	const bootPartition = "uevent=DEVNAME=vda\nPARTNAME=boot\nPARTN=1\n"
	for _, c := range []struct {
		name  string
		disks func(m machine)
		from  string
		err   string
		none  bool
	}{
		{"nothing", func(m machine) { m.disk("vda", image(t, "fat12.img")) }, "", "there is no boot partition", true},
		{"by the label", func(m machine) { m.disk("vda", image(t, "fat32.img")) }, "vda", "", false},
		{"by the partition's name", func(m machine) {
			m.disk("vda", image(t, "fat12.img"))
			m.file("sys/devices/pci0/vda/uevent", []byte("DEVNAME=vda\nPARTNAME=boot\nPARTN=1\n"))
		}, "vda", "", false},
		{"without an identity", func(m machine) { m.disk("vda", with(t, "fat32.img", "IDENTITYCFG", "IDENTITXCFG")) }, "", "vda has no identity.cfg", true},
		{"bad", func(m machine) { m.disk("vda", with(t, "fat32.img", "ID=0a1b", "ID=xa1b")) }, "", "ID: ", false},
		{"no CA file", func(m machine) { m.disk("vda", with(t, "fat32.img", line, "CA_PEM_FILE=none.pem")) }, "", "CA_PEM_FILE: open none.pem", false},
		{"a CA file elsewhere", func(m machine) { m.disk("vda", with(t, "fat32.img", line, "CA_PEM_FILE=/etc/ca.pem")) }, "", "root directory", false},
		{"a CA file that isn't one", func(m machine) { m.disk("vda", with(t, "fat32.img", line, "CA_PEM_FILE=META-DATA")) }, "", "CA_PEM", false},
		{"mirrored disks", func(m machine) { m.disk("vda", image(t, "fat32.img")); m.disk("vdb", image(t, "fat32.img")) }, "vda", "", false},
		{"two that differ", func(m machine) {
			m.disk("vda", image(t, "fat32.img"))
			m.disk("vdb", with(t, "fat32.img", line, "SERVER=https://q.example"))
		}, "", "several of them", false},
		{"one of two is damaged", func(m machine) {
			m.disk("vda", image(t, "fat32.img"))
			m.disk("vdb", with(t, "fat32.img", "ID=0a1b", "ID=xa1b"))
		}, "", "several of them", false},
		{"a disk that can't be read, and a stick", func(m machine) {
			m.disk("vda", image(t, "fat32.img")[:4<<10], bootPartition)
			m.disk("sda", image(t, "fat32.img"), "removable=1")
		}, "sda", "", false},
		{"a disk that can't be read", func(m machine) { m.disk("vda", image(t, "fat32.img")[:4<<10], bootPartition) }, "", "read it: ", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := machine{t, t.TempDir()}
			c.disks(m)
			found, err := Boot{m.options()}.Find(t.Context())
			check(t, found, err, c.from, c.err, c.none)
		})
	}
}

// TestBootPartitionOfTheKernel has an ext4, which the kernel mounts, with a link that leads out of it.
func TestBootPartitionOfTheKernel(t *testing.T) {
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("there is no mkfs.ext4")
	}
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	ca := pkitest.NewCA(t, "CA")
	for _, c := range []struct {
		name string
		fill func(dir string) error
		err  string
	}{
		{"files", func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, "ca.pem"), ca.PEM(), 0o600),
				os.WriteFile(filepath.Join(dir, "identity.cfg"), []byte("ID="+uuid+"\nKEY="+token+"\nCA_PEM_FILE=/boot/ca.pem\n"), 0o600))
		}, ""},
		{"a link", func(dir string) error { return os.Symlink("/etc/hostname", filepath.Join(dir, "identity.cfg")) }, "identity.cfg"},
		{"a pipe", func(dir string) error { return unix.Mkfifo(filepath.Join(dir, "identity.cfg"), 0o600) }, "isn't a regular file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := machine{t, t.TempDir()}
			seed := filepath.Join(m.dir, "seed")
			if err := errors.Join(os.Mkdir(seed, 0o700), c.fill(seed)); err != nil {
				t.Fatal(err)
			}
			img := m.file("img", make([]byte, 8<<20))
			if out, err := exec.CommandContext(t.Context(), mkfs, "-q", "-L", "boot", "-d", seed, img).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			f, err := os.OpenFile(img, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			loop, err := mount.LoopDevice(f, true)
			if err != nil {
				t.Skipf("no loop device here: %v", err)
			}
			defer loop.Close()
			m.disk("vda", nil)
			if err := errors.Join(os.MkdirAll(filepath.Join(m.dir, "dev"), 0o700), os.Symlink(loop.Name(), filepath.Join(m.dir, "dev/vda"))); err != nil {
				t.Fatal(err)
			}
			found, err := Boot{m.options()}.Find(t.Context())
			check(t, found, err, "vda", c.err, false)
			if c.err == "" && string(found.CAPEM) != string(ca.PEM()) {
				t.Errorf("CA %q", found.CAPEM)
			}
		})
	}
}
