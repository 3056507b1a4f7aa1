package vm

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/test/lab"
)

// credentials is what the node's credentials hold that tests look at.
type credentials struct {
	KeyPEM  string `json:"key_pem"`
	TPMKey  string `json:"tpm_key"`
	CertPEM string `json:"cert_pem"`
}

// credentials reads the node's credentials from inside, and returns them with their certificate.
func (s *system) credentials() (credentials, *x509.Certificate) {
	s.n.t.Helper()
	var c credentials
	if err := json.Unmarshal([]byte(s.Read(filepath.Join(boot.PKIDir(filepath.Join("/persist", stateDir)), "credentials.json"))), &c); err != nil {
		s.n.t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(c.CertPEM))
	if block == nil {
		s.n.t.Fatalf("the certificate is %q", c.CertPEM)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		s.n.t.Fatal(err)
	}
	return c, cert
}

// diskHolds returns those of the words that are anywhere on a disk, files that were removed included.
func diskHolds(t *testing.T, disk string, words ...string) []string {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const overlap = 256
	found := map[string]bool{}
	for buf, kept := make([]byte, overlap+4<<20), 0; ; {
		n, err := io.ReadFull(f, buf[kept:])
		for _, w := range words {
			found[w] = found[w] || bytes.Contains(buf[:kept+n], []byte(w))
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kept = copy(buf, buf[kept+n-overlap:kept+n])
	}
	var out []string
	for _, w := range words {
		if found[w] {
			out = append(out, w)
		}
	}
	return out
}

// privateKeys are how a private key that isn't a TPM's begins: in PEM, in the base64 of PKCS#8 (Ed25519, and
// ECDSA on P-256), and in its DER.
var privateKeys = []string{
	"-----BEGIN PRIVATE KEY-----", "-----BEGIN EC PRIVATE KEY-----", "MC4CAQAwBQYDK2VwBCIEI", "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg",
	"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20",
}

// keyIsInTheTPM checks the disk of a node that is off.
func (n *node) keyIsInTheTPM(t *testing.T) {
	t.Helper()
	const tpmKey = "-----BEGIN TSS2 PRIVATE KEY-----"
	found := diskHolds(t, n.disk, append([]string{tpmKey}, privateKeys...)...)
	if len(found) == 0 || found[0] != tpmKey {
		t.Error("there is no TPM's key on the disk, so the search shows nothing")
	}
	if len(found) > 1 {
		t.Errorf("the disk holds a private key: %q", found[1:])
	}
}

// TestKeyInTheTPM: with node_key: tpm the node's key is in its TPM and nowhere else, from enrollment through
// restarts and a rotation. Without a TPM the node doesn't enroll; with another one it runs what it ran.
func TestKeyInTheTPM(t *testing.T) {
	whole(t)
	t.Parallel()
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("tpm", "base", "app")
	n.machine.Initramfs = agentInitramfs(t, p, "integrity: enforced\nnode_key: tpm\n", "")
	tpm := lab.TempDir(t)

	t.Run("without a TPM", func(t *testing.T) {
		s := n.on(t).start()
		s.WaitLine(`This machine can't boot: .*the node's key is to live in a TPM, and this machine shows none`)
		s.WaitLine(`What to do: .*node_key`)
		s.Kill()
	})

	n.machine.TPM = tpm
	var first *x509.Certificate
	t.Run("enrolls", func(t *testing.T) {
		n := n.on(t)
		s := n.boot()
		s.good()
		s.runs(1, "1")
		c, cert := s.credentials()
		if c.KeyPEM != "" || !strings.Contains(c.TPMKey, "BEGIN TSS2 PRIVATE KEY") || cert.PublicKeyAlgorithm != x509.ECDSA {
			t.Errorf("a key of %v; in a file %q, in the TPM %q", cert.PublicKeyAlgorithm, c.KeyPEM, c.TPMKey)
		}
		first = cert
		s.PowerOff()
		n.keyIsInTheTPM(t)
	})
	t.Run("again, and rotates", func(t *testing.T) {
		n := n.on(t)
		s := n.boot()
		if _, cert := s.credentials(); !cert.Equal(first) {
			t.Error("a restart made it enroll again")
		}
		s.agent("enroll", "--renew").OK(t)
		c, second := s.credentials()
		if second.Equal(first) || c.KeyPEM != "" || bytes.Equal(second.RawSubjectPublicKeyInfo, first.RawSubjectPublicKeyInfo) {
			t.Errorf("after the rotation: certificate %v, before %v; key in a file %q", second.SerialNumber, first.SerialNumber, c.KeyPEM)
		}
		s.good()
		s.PowerOff()
		n.keyIsInTheTPM(t)
	})
	t.Run("another TPM", func(t *testing.T) {
		n := n.on(t)
		n.machine.TPM = lab.TempDir(t)
		s := n.boot()
		s.says("TPM", "staying with generation 1")
		s.runs(1, "1")
		s.PowerOff()
	})
	t.Run("its own again", func(t *testing.T) {
		s := n.on(t).boot()
		if doc := s.runs(1, "1"); len(doc.Remarks) > 0 {
			t.Errorf("remarks %q", doc.Remarks)
		}
		s.good()
		s.PowerOff()
	})
}
