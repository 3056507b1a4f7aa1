package enroll

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

// FuzzUnit reads damaged files of credentials; whatever is accepted must be a pair.
func FuzzUnit(f *testing.F) {
	ca := pkitest.NewCA(f, "CA")
	issued := ca.Issue(ca.Node(instance))
	key, err := encodeKey(issued.PrivateKey.(ed25519.PrivateKey))
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(unit{
		Version: 1, InstanceID: instance, PlatformURL: "https://p.example",
		pair: pair{storedKey: storedKey{KeyPEM: string(key)}, CertPEM: string(pkitest.EncodePEM(issued.Leaf))}, CAPEM: string(ca.PEM()),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"version":1,"key_pem":"","cert_pem":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var u unit
		if json.Unmarshal(text, &u) != nil {
			return
		}
		c, err := u.credentials(keyring{TPMAt("")})
		if err != nil {
			return
		}
		if !ownKey(c.Leaf, c.key) || c.InstanceID == "" || len(c.CAs) == 0 {
			t.Fatalf("accepted %q", text)
		}
	})
}

// FuzzAccept judges damaged answers; nothing may be accepted that isn't for our key and from our CA.
func FuzzAccept(f *testing.F) {
	ca := pkitest.NewCA(f, "CA")
	pair := ca.Issue(ca.Node(instance))
	key, err := fileKey(pair.PrivateKey.(ed25519.PrivateKey))
	if err != nil {
		f.Fatal(err)
	}
	cas := []*x509.Certificate{ca.Cert}
	good := string(pkitest.EncodePEM(pair.Leaf))
	f.Add(good, string(ca.PEM()), instance, "c-1")
	f.Add(good+good, "", instance, "")
	f.Add(good[:90], "x", "", "\n")
	f.Fuzz(func(t *testing.T, cert, chain, id, certID string) {
		a := nodeapi.EnrollResponse{CertPEM: cert, CAChainPEM: chain, InstanceID: id, CertificateID: certID}
		c, err := accept(a, expected{
			base: Credentials{PlatformURL: "https://p.example", CAs: cas, caPEM: string(ca.PEM())}, key: key,
		}, time.Now(), keyring{TPMAt("")})
		if err != nil {
			return
		}
		if c.InstanceID != instance || !ownKey(c.Leaf, key) || c.Leaf.CheckSignatureFrom(ca.Cert) != nil {
			t.Fatalf("accepted %q %q %q", cert, chain, id)
		}
	})
}
