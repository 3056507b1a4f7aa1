package api

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// FuzzProvenCertificate: no certificate comes of anything but a signature by its key of this very request.
func FuzzProvenCertificate(f *testing.F) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		f.Fatal(err)
	}
	request, at := []byte("request"), "2026-11-23T14:00:00Z"
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	good := nodeapi.RenewRequest{
		CSRPEM: block("CERTIFICATE REQUEST", request), CertificatePEM: block("CERTIFICATE", der),
		SignedAt: at, Proof: ed25519.Sign(key, nodeapi.RenewMessage(at, request)),
	}
	if _, err := provenCertificate(good); err != nil {
		f.Fatal(err)
	}
	f.Add(good.CSRPEM, good.CertificatePEM, at, []byte("proof"))
	f.Add(good.CSRPEM, good.CertificatePEM, "2026-11-23T15:00:00Z", good.Proof)
	f.Add("", good.CertificatePEM, at, good.Proof[:63])
	f.Add(good.CSRPEM, "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", at, good.Proof)
	f.Fuzz(func(t *testing.T, csr, certificate, signedAt string, proof []byte) {
		cert, err := provenCertificate(nodeapi.RenewRequest{CSRPEM: csr, CertificatePEM: certificate, SignedAt: signedAt, Proof: proof})
		if err != nil {
			return
		}
		// Whoever has another key's signature has that key.
		if public.Equal(cert.PublicKey) && (string(proof) != string(good.Proof) || signedAt != at) {
			t.Errorf("a proof that the key didn't make: %s, %x", signedAt, proof)
		}
	})
}

func FuzzParseRenewPolicy(f *testing.F) {
	for _, s := range []string{"always", "never", "approval", "30d", "0d", "3651d", "-1d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseRenewPolicy(s)
		if err != nil {
			return
		}
		if again, err := ParseRenewPolicy(p.String()); err != nil || again != p {
			t.Errorf("%q is %v, and that is %v: %v", s, p, again, err)
		}
		superseded := time.Unix(1, 0)
		if got := p.Judge(db.Certificate{SupersededAt: &superseded}, superseded); got != db.RenewAsk {
			t.Errorf("%q: a superseded certificate: %v", s, got)
		}
	})
}
