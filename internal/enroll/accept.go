package enroll

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// maxLifetime is the longest validity that a node's certificate may have; a longer one isn't what a
// platform means to issue.
const maxLifetime = 10 * 366 * 24 * time.Hour

// expected is what a platform's answer is held against.
type expected struct {
	// base says the platform, the CAs and the instance, which may be "" where the token says it.
	base Credentials
	// key is what the certificate must be for.
	key nodeKey
	// conn is the connection of the answer; nil where there is none, as in a test.
	conn *nodehttp.Conn
}

// judge checks an answer, and returns the credentials that it makes.
func (o Options) judge(doing string, a nodeapi.EnrollResponse, e expected) (*Credentials, error) {
	c, err := accept(a, e, o.now(), o.keys())
	if err != nil {
		return nil, fault.New(fault.Broken, fault.Platform, hintUnchanged,
			"%s at %s: the platform's answer is refused: %w", doing, e.base.PlatformURL, err)
	}
	return c, nil
}

// adoptable returns the CAs of a bundle that came over a connection which the present CAs vouch for, if the
// server that sent it is vouched for by the new ones too: a bundle that cuts the node off from its platform
// isn't one to follow.
func adoptable(bundle string, conn *nodehttp.Conn, now time.Time) ([]*x509.Certificate, error) {
	cas, err := nodehttp.ParseCAs([]byte(bundle))
	if err != nil {
		return nil, err
	}
	if err := nodehttp.Verifies(conn.PeerCertificates(), conn.Host(), cas, now); err != nil {
		return nil, fmt.Errorf("the server that sent it doesn't lead to any CA of it: %w", err)
	}
	return cas, nil
}

// accept checks a platform's answer against our key, our CA and what we know of ourselves, and
// turns it into credentials. Everything is checked before anything is replaced.
func accept(a nodeapi.EnrollResponse, e expected, now time.Time, keys keyring) (*Credentials, error) {
	certs, err := parseCertificates([]byte(a.CertPEM))
	if err != nil {
		return nil, fmt.Errorf("its certificate: %w", err)
	}
	leaf, intermediates := certs[0], certs[1:]
	if a.CAChainPEM != "" {
		chain, err := parseCertificates([]byte(a.CAChainPEM))
		if err != nil {
			return nil, fmt.Errorf("its CA chain: %w", err)
		}
		intermediates = append(intermediates, chain...)
	}
	if err := e.fits(a, leaf, now); err != nil {
		return nil, err
	}
	// A root has no place among the intermediates: neither side needs to send it.
	kept := make([]*x509.Certificate, 0, len(intermediates))
	for _, c := range intermediates {
		if c.CheckSignatureFrom(c) != nil && !shareCA([]*x509.Certificate{c}, e.base.CAs) {
			kept = append(kept, c)
		}
	}
	if err := chains(leaf, kept, e.base.CAs, now); err != nil {
		return nil, fmt.Errorf("the certificate doesn't lead to the CA that this node trusts: %w", err)
	}
	c := e.base
	c.InstanceID, c.CertificateID, c.EnrolledAt = a.InstanceID, printable(a.CertificateID), now
	c.Leaf, c.Intermediates, c.key = leaf, kept, e.key
	c.said, c.origin, c.previous = nil, "", nil
	// By way of the file's form, so that what is returned is what a restart will read.
	return c.unit().credentials(keys)
}

// fits checks whose the certificate is, and when it is valid.
func (e expected) fits(a nodeapi.EnrollResponse, leaf *x509.Certificate, now time.Time) error {
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch want := e.base.InstanceID; {
	case !ownKey(leaf, e.key):
		return errors.New("the certificate isn't for this node's key")
	case leaf.IsCA:
		return errors.New("the certificate is a CA's")
	case !validInstance(a.InstanceID):
		return fmt.Errorf("%.60q isn't an instance ID", a.InstanceID)
	case leaf.Subject.CommonName != a.InstanceID:
		return fmt.Errorf("the certificate is for %.60q, the answer for instance %s", leaf.Subject.CommonName, a.InstanceID)
	case want != "" && !strings.EqualFold(want, a.InstanceID):
		return fmt.Errorf("it is for instance %s, this node is %s", a.InstanceID, want)
	case !leaf.NotBefore.Before(leaf.NotAfter) || leaf.NotAfter.Sub(leaf.NotBefore) > maxLifetime:
		return fmt.Errorf("the certificate is valid from %s to %s", stamp(leaf.NotBefore), stamp(leaf.NotAfter))
	case !now.Before(leaf.NotAfter):
		return fmt.Errorf("the certificate ended at %s and this machine's clock says %s", stamp(leaf.NotAfter), stamp(now))
	}
	return nil
}

// validInstance bounds what will stand in files, logs and on the console.
func validInstance(id string) bool { return id != "" && len(id) <= 64 && printable(id) == id }

// printable returns s if it is a plain identifier of at most 128 characters, and "" otherwise.
func printable(s string) string {
	if len(s) > 128 {
		return ""
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return ""
		}
	}
	return s
}
