package identity

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

// sysfs lays out a directory as the kernel's qemu_fw_cfg module does: the values below by_key, and
// below by_name a tree whose leaves are symbolic links to them.
func sysfs(t *testing.T, values map[string]string) string {
	t.Helper()
	root := t.TempDir()
	n := 32
	for name, value := range values {
		n++
		key := filepath.Join(root, "by_key", strconv.Itoa(n))
		link := filepath.Join(root, "by_name", name)
		up := strings.Repeat("../", strings.Count(name, "/")+1)
		for _, err := range []error{
			os.MkdirAll(key, 0o755), os.MkdirAll(filepath.Dir(link), 0o755),
			os.WriteFile(filepath.Join(key, "raw"), []byte(value), 0o400),
			os.Symlink(up+"by_key/"+strconv.Itoa(n), link),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

func TestFWCfg(t *testing.T) {
	ca := pkitest.NewCA(t, "CA")
	const dir = "opt/com.powernode/"
	for _, c := range []struct {
		name   string
		values map[string]string
		err    string
		absent bool
	}{
		{name: "all", values: map[string]string{
			dir + "instance_uuid": uuid + "\n", dir + "bootstrap_token": token + "\x00", dir + "platform_url": " https://p.example/ \n",
			dir + "ca_pem": string(ca.PEM()), dir + "instance_name": "web-1", "etc/acpi/tables": "x",
		}},
		{name: "as systemd has it", values: map[string]string{
			"opt/io.systemd.credentials/powernode.instance_uuid": uuid, dir + "bootstrap_token": token, "opt/io.systemd.credentials/powernode.bootstrap_token": "another-token-0123456789",
			"opt/io.systemd.credentials/powernode.platform_url": "https://p.example", "opt/io.systemd.credentials/powernode.ca_pem": string(ca.PEM()), "opt/io.systemd.credentials/other": "x",
		}},
		{name: "bad credential", values: map[string]string{"opt/io.systemd.credentials/powernode.clock": "x"}, err: "opt/io.systemd.credentials/powernode.clock: "},
		{name: "others only", values: map[string]string{"etc/acpi/tables": "x"}, err: "gave no identity in opt/com.powernode", absent: true},
		{name: "no identity", values: map[string]string{dir + "instance_name": "web-1", dir + "bootstrap_token": "\n"}, err: "gave no identity", absent: true},
		{name: "bad", values: map[string]string{dir + "platform_url": "http://p.example"}, err: "opt/com.powernode/platform_url: platform URL"},
		{name: "huge", values: map[string]string{dir + "bootstrap_token": strings.Repeat("a", 5000)}, err: "read opt/com.powernode/bootstrap_token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := sysfs(t, c.values)
			got, err := FWCfg{root}.Find(t.Context())
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || errors.Is(err, ErrNotFound) != c.absent {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.InstanceID != uuid || got.Token.Reveal() != token || got.PlatformURL != "https://p.example" || string(got.CAPEM) != string(ca.PEM()) || got.Where != root {
				t.Errorf("got %+v", got)
			}
		})
	}
	if _, err := (FWCfg{"/nonexistent"}).Find(t.Context()); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "not a QEMU machine") {
		t.Errorf("no such directory: %v", err)
	}
}

// TestFWCfgStaysInside has a link that leads out of the kernel module's directory.
func TestFWCfgStaysInside(t *testing.T) {
	root := sysfs(t, map[string]string{"opt/com.powernode/instance_name": "x"})
	outside := filepath.Dir(write(t, "raw", token))
	if err := os.Symlink(outside, filepath.Join(root, fwCfgDir, "bootstrap_token")); err != nil {
		t.Fatal(err)
	}
	if found, err := (FWCfg{root}).Find(t.Context()); err == nil || !found.Token.IsZero() {
		t.Errorf("followed the link: %v, %v", found, err)
	}
}
