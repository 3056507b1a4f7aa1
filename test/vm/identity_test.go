package vm

import (
	"bytes"
	"crypto/x509"
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

// TestIdentityOfManyPlaces: the platform's URL is in the firmware's strings, the token and the fingerprint of the
// CA on a CD, and the CA comes from the platform.
func TestIdentityOfManyPlaces(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("many", "base", "app").on(t)
	block, _ := pem.Decode([]byte(n.token.CAPEM))
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	medium := cidata(t, fmt.Sprintf("powernode.bootstrap_token=%s\npowernode.ca_sha256=%s\n", n.token.Token, identity.Fingerprint(ca)))
	n.machine.FirmwareConfig = map[string]string{}
	n.machine.Flags = []string{
		"-smbios", "type=11,value=io.systemd.credential:powernode.platform_url=" + n.token.PlatformURL + ",value=another's",
		"-drive", "file=" + medium + ",format=raw,if=none,id=cd,media=cdrom,readonly=on", "-device", "ide-cd,bus=ide.5,drive=cd",
	}
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
