package enroll

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// chains checks that leaf leads to one of roots as a TLS client's certificate. The chain is judged
// at the instant of leaf's validity that is nearest to now, because whether leaf itself is in
// force is another question, and the clock may be wrong.
func chains(leaf *x509.Certificate, intermediates, roots []*x509.Certificate, now time.Time) error {
	if now.After(leaf.NotAfter) {
		now = leaf.NotAfter
	}
	if now.Before(leaf.NotBefore) {
		now = leaf.NotBefore
	}
	o := x509.VerifyOptions{
		Roots: pool(roots), Intermediates: pool(intermediates), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	_, err := leaf.Verify(o)
	return err
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// shareCA reports whether two bundles have a certificate in common.
func shareCA(a, b []*x509.Certificate) bool {
	for _, x := range a {
		for _, y := range b {
			if bytes.Equal(x.Raw, y.Raw) {
				return true
			}
		}
	}
	return false
}

const maxCertificates = 8

// parseCertificates reads one to eight certificates, the leaf first.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("the PEM holds a block of type %.40q among the certificates", block.Type)
		}
		if len(certs) == maxCertificates {
			return nil, fmt.Errorf("the PEM holds more than %d certificates", maxCertificates)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d doesn't parse: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("it isn't a PEM certificate")
	}
	return certs, nil
}

func encodeCertificates(certs []*x509.Certificate) string {
	var b bytes.Buffer
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.String()
}
