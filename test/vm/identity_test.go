package vm

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/test/lab"
)

// userDataSize is the size of user-data on the volumes of identity/volume's tests.
const userDataSize = 172

// cidata makes a medium labelled cidata, ISO 9660, with this user-data, and returns its file.
func cidata(t *testing.T, userData string) string {
	t.Helper()
	packed, err := os.ReadFile(filepath.Join(oracle.Root(t), "internal/identity/volume/testdata/joliet.iso.zst"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	image, err := d.DecodeAll(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(image, []byte("powernode.instance_uuid="))
	if at < 0 || len(userData) > userDataSize {
		t.Fatalf("user-data of %d bytes at %d", len(userData), at)
	}
	copy(image[at:], userData+strings.Repeat("\n", userDataSize-len(userData)))
	path := filepath.Join(lab.TempDir(t), "cidata.iso")
	lab.Write(t, path, image, 0o600)
	return path
}

// drive attaches a medium of cidata.
func drive(medium string) []string {
	return []string{"-drive", "file=" + medium + ",format=raw,if=none,id=cd,media=cdrom,readonly=on", "-device", "ide-cd,bus=ide.5,drive=cd"}
}

// fat attaches a disk, by this device of QEMU or later by none, whose first partition is a FAT file system with this label and these files. QEMU makes it.
func fat(t *testing.T, device, label string, files map[string]string) []string {
	t.Helper()
	dir := lab.TempDir(t)
	for name, text := range files {
		lab.Write(t, filepath.Join(dir, name), []byte(text), 0o600)
	}
	flags := []string{"-drive", "driver=vvfat,dir=" + dir + ",label=" + label + ",fat-type=16,read-only=on,if=none,id=fat"}
	if device != "" {
		flags = append(flags, "-device", device+",drive=fat")
	}
	return flags
}

// fingerprint is that of the platform's CA.
func (n *node) fingerprint() string {
	n.t.Helper()
	block, _ := pem.Decode([]byte(n.token.CAPEM))
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		n.t.Fatal(err)
	}
	return identity.Fingerprint(ca)
}

// TestIdentityOfManyPlaces: the platform's URL is in the firmware's strings, the token and the fingerprint of the
// CA on a CD, and the CA comes from the platform.
func TestIdentityOfManyPlaces(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("many", "base", "app").on(t)
	medium := cidata(t, fmt.Sprintf("powernode.bootstrap_token=%s\npowernode.ca_sha256=%s\n", n.token.Token, n.fingerprint()))
	n.machine.FirmwareConfig = map[string]string{}
	n.machine.Flags = []string{
		"-smbios", "type=11,value=io.systemd.credential:powernode.platform_url=" + n.token.PlatformURL + ",value=another's",
	}
	n.machine.Flags = append(n.machine.Flags, drive(medium)...)
	s := n.boot()
	s.runs(1, "1")
	if f := s.journal(); f.InstanceID != n.token.NodeID {
		t.Errorf("it is %s, not %s", f.InstanceID, n.token.NodeID)
	}
	out := s.agent("introspect", "--sources", "--output", "table").Stdout
	for _, want := range []string{"found platform_url in /sys/firmware/dmi/tables/DMI", "found bootstrap_token, ca_sha256 in /dev/sr0:user-data"} {
		if !strings.Contains(out, want) {
			t.Errorf("introspect doesn't say %q:\n%s", want, out)
		}
	}
	s.PowerOff()
}

// TestIdentityVolumes: a new machine finds out who it is from what is plugged into it, or from its firmware
// alone, and needs none of that once it is enrolled, with its platform or without.
func TestIdentityVolumes(t *testing.T) {
	whole(t)
	t.Parallel()
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	const credential = "io.systemd.credential:powernode."
	var last *node
	for _, c := range []struct {
		name string
		// source is how introspect calls the place.
		source string
		// flags plug in what says who the machine is, arguments what the kernel command line adds to that.
		flags     func(t *testing.T, n *node) []string
		arguments func(n *node) string
	}{
		{
			name: "cloud-config", source: "found bootstrap_token, ca_sha256 in /dev/sr0:user-data",
			flags: func(t *testing.T, n *node) []string {
				return drive(cidata(t, fmt.Sprintf("#cloud-config\npowernode:\n  bootstrap_token: %s\n  ca_sha256: %s\n", n.token.Token, n.fingerprint())))
			},
			arguments: func(n *node) string { return "powernode.platform_url=" + n.token.PlatformURL },
		},
		{
			name: "stick", source: "found instance_id, bootstrap_token, platform_url, ca in /dev/sda1:user-data",
			flags: func(t *testing.T, n *node) []string {
				pairs := fmt.Sprintf("powernode.platform_url=%s\npowernode.bootstrap_token=%s\npowernode.instance_uuid=%s\npowernode.ca_pem=%s\n",
					n.token.PlatformURL, n.token.Token, n.token.NodeID, base64.StdEncoding.EncodeToString([]byte(n.token.CAPEM)))
				return append([]string{"-device", "virtio-scsi-pci,id=hba"},
					fat(t, "scsi-hd,removable=on,bus=hba.0", "CIDATA", map[string]string{"meta-data": "", "user-data": pairs})...)
			},
		},
		{
			name: "partition", source: "found bootstrap_token, platform_url, ca in /dev/vdb1:identity.cfg",
			flags: func(t *testing.T, n *node) []string {
				return fat(t, "virtio-blk-pci", "BOOT", map[string]string{
					"identity.cfg": "SERVER=" + n.token.PlatformURL + "\r\nexport KEY=\"" + n.token.Token + "\"\r\nCA_PEM_FILE=/boot/ca.pem\r\n",
					"ca.pem":       n.token.CAPEM,
				})
			},
		},
		{
			name: "strings", source: "found bootstrap_token, platform_url, ca in /sys/firmware/dmi/tables/DMI",
			flags: func(_ *testing.T, n *node) []string {
				return []string{
					"-smbios", "type=11,value=" + credential + "platform_url=" + n.token.PlatformURL,
					"-smbios", "type=11,value=" + credential + "bootstrap_token=" + n.token.Token,
					"-smbios", "type=11,value=io.systemd.credential.binary:powernode.ca_pem=" + base64.StdEncoding.EncodeToString([]byte(n.token.CAPEM)),
				}
			},
		},
		{
			name: "fingerprint", source: "found bootstrap_token, platform_url, ca_sha256 in /proc/cmdline",
			flags: func(*testing.T, *node) []string { return nil },
			arguments: func(n *node) string {
				return fmt.Sprintf("powernode.platform_url=%s powernode.bootstrap_token=%s powernode.ca_sha256=%s", n.token.PlatformURL, n.token.Token, n.fingerprint())
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := p.node(c.name, "base", "app").on(t)
			n.machine.FirmwareConfig = map[string]string{}
			n.machine.Flags = c.flags(t, n)
			if c.arguments != nil {
				n.machine.Append = c.arguments(n)
			}
			s := n.boot()
			s.runs(1, "1")
			if f := s.journal(); f.InstanceID != n.token.NodeID {
				t.Errorf("it is %s, not %s", f.InstanceID, n.token.NodeID)
			}
			out := s.agent("introspect", "--sources", "--output", "table").Stdout
			if !strings.Contains(out, c.source) {
				t.Errorf("introspect doesn't say %q:\n%s", c.source, out)
			}
			if strings.Contains(out+s.Console(), n.token.Token) {
				t.Errorf("the token is shown:\n%s\n%s", out, s.Console())
			}
			s.PowerOff()
			last = n
		})
	}
	if t.Failed() {
		return
	}
	t.Run("nothing", func(t *testing.T) {
		n := last.on(t)
		n.machine.Flags, n.machine.Append = nil, ""
		s := n.boot()
		s.good()
		if doc := s.runs(1, "1"); !doc.InStep || len(doc.Remarks) > 0 {
			t.Errorf("in step %t because of %q, remarks %q", doc.InStep, doc.Reasons, doc.Remarks)
		}
		s.PowerOff()
		p.Stop()
		s = n.boot()
		s.says("staying with generation 1")
		s.runs(1, "1")
		s.PowerOff()
	})
}
