package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
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
}

// errOtherCA says that a certificate is of a CA which nothing leads to from those that the node trusts.
var errOtherCA = errors.New("the certificate doesn't lead to the CA that this node trusts")

// judge checks an answer, and returns the credentials that it makes. Where the certificate is of a CA that the present
// ones can't vouch for by a certificate, they may have by their signature while the node was off or wasn't enrolled:
// then it follows. An error of kind fault.Retry says nothing of the answer.
func (o Options) judge(ctx context.Context, doing string, a nodeapi.EnrollResponse, e expected) (*Credentials, error) {
	c, err := accept(a, e, o.now(), o.keys())
	if errors.Is(err, errOtherCA) {
		cas, bundle, no := o.offeredCA(ctx, e.base.stranger(), e.base.LocalClock, e.base.caPEM)
		switch {
		case fault.KindOf(no) == fault.Retry:
			return nil, fmt.Errorf("%s: %w", doing, no)
		case no != nil:
			o.Log.Warn("the platform's CA bundle isn't adopted", "error", no)
		case cas != nil:
			e.base.CAs, e.base.caPEM = cas, bundle
			c, err = accept(a, e, o.now(), o.keys())
		}
	}
	if err != nil {
		return nil, fault.New(fault.Broken, fault.Platform, hintUnchanged,
			"%s at %s: the platform's answer is refused: %w", doing, e.base.PlatformURL, err)
	}
	return c, nil
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
		return nil, fmt.Errorf("%w: %w", errOtherCA, err)
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
