package signedtime

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// Bounds of an answer.
const (
	maxTimeText  = 40  // of RFC 3339 with nanoseconds: 30
	maxSigners   = 8   // certificates: the signer, and what leads to an older CA
	maxSum       = 64  // hexadecimal digits
	maxSignature = 128 // bytes; ECDSA on P-256 in ASN.1 takes 72, Ed25519 64
)

// judge returns the time of an answer to the question with nonce, if one of cas vouches for it, and whether its
// CAs are valid at other times.
func judge(a nodeapi.TimeResponse, nonce string, cas []*x509.Certificate) (t time.Time, at func(time.Time) error, err error) {
	if a.Nonce != nonce {
		return time.Time{}, nil, errors.New("it answers another question (the nonce isn't ours)")
	}
	if t, err = parseTime(a.ServerTime); err != nil {
		return time.Time{}, nil, err
	}
	if len(a.Signature) == 0 || len(a.Signature) > maxSignature {
		return time.Time{}, nil, fmt.Errorf("its signature has %d bytes, 1 to %d are expected", len(a.Signature), maxSignature)
	}
	if len(a.CABundleSHA256) > maxSum {
		return time.Time{}, nil, fmt.Errorf("its SHA-256 of a CA bundle has %d characters", len(a.CABundleSHA256))
	}
	chain, err := nodehttp.ParseCAs([]byte(a.SignerPEM))
	if err != nil {
		return time.Time{}, nil, fmt.Errorf("its signer: %w", err)
	}
	if len(chain) > maxSigners {
		return time.Time{}, nil, fmt.Errorf("it comes with %d certificates, at most %d are read", len(chain), maxSigners)
	}
	at = func(t time.Time) error { return vouched(chain, cas, t) }
	if err := at(t); err != nil {
		return time.Time{}, nil, err
	}
	if err := signed(chain[0], nodeapi.TimeMessage(nonce, a.ServerTime, a.CABundleSHA256), a.Signature); err != nil {
		return time.Time{}, nil, err
	}
	return t, at, nil
}

// vouched checks that the first of chain is one of cas, or leads to one, at the time now.
func vouched(chain, cas []*x509.Certificate, now time.Time) error {
	signer := chain[0]
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, ca := range cas {
		roots.AddCert(ca)
	}
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	// The signer's key may stand there several times: in its own certificate, and in the one by which an older CA
	// vouches for it. x509 takes both for the same authority, and follows no path from one to the other.
	var err error
	for _, c := range chain {
		if !bytes.Equal(c.RawSubjectPublicKeyInfo, signer.RawSubjectPublicKeyInfo) {
			continue
		}
		if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
			return errors.New("its signer is no certificate authority (its key isn't for signing certificates)")
		}
		_, no := c.Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
		if no == nil {
			return nil
		}
		err = no
	}
	return fmt.Errorf("at %s its signer isn't vouched for by the CA that this node trusts: %w", stamp(now), err)
}

// signed checks the signature of message by the key of signer.
func signed(signer *x509.Certificate, message, signature []byte) error {
	var algorithm x509.SignatureAlgorithm
	switch key := signer.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return errors.New("its signer's key is on another curve than P-256")
		}
		algorithm = x509.ECDSAWithSHA256
	case ed25519.PublicKey:
		algorithm = x509.PureEd25519
	default:
		return errors.New("its signer's key is neither ECDSA on P-256 nor Ed25519")
	}
	if err := signer.CheckSignature(algorithm, message, signature); err != nil {
		return fmt.Errorf("its signature doesn't verify with the signer's key: %w", err)
	}
	return nil
}

// parseTime reads a time that must be RFC 3339 in UTC, "2026-11-23T12:00:00.123456789Z": four digits of the year,
// the letters T and Z, a point and at most nine digits of the second's fraction.
func parseTime(s string) (time.Time, error) {
	refused := func() (time.Time, error) {
		return time.Time{}, fmt.Errorf("its time %.40q isn't RFC 3339 in UTC", s)
	}
	const seconds = "2006-01-02T15:04:05"
	if len(s) <= len(seconds) || len(s) > maxTimeText {
		return refused()
	}
	t, err := time.Parse(seconds+"Z", s[:len(seconds)]+"Z")
	if err != nil || t.Format(seconds) != s[:len(seconds)] {
		return refused()
	}
	fraction, utc := strings.CutSuffix(s[len(seconds):], "Z")
	if !utc {
		return refused()
	}
	if fraction == "" {
		return t, nil
	}
	if fraction[0] != '.' || len(fraction) == 1 || len(fraction) > 10 {
		return refused()
	}
	nanoseconds := 0
	for _, c := range []byte((fraction[1:] + "000000000")[:9]) {
		if c < '0' || c > '9' {
			return refused()
		}
		nanoseconds = nanoseconds*10 + int(c-'0')
	}
	return t.Add(time.Duration(nanoseconds)), nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
