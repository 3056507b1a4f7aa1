package enroll

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/secret"
)

// maxLifetime is the longest validity that a node's certificate may have; a longer one isn't what a
// platform means to issue.
const maxLifetime = 10 * 366 * 24 * time.Hour

// exchange sends the token and the certificate request until the platform answers, and returns what
// the answer is worth. It writes nothing.
func exchange(ctx context.Context, o Options, b Bootstrap, key ed25519.PrivateKey) (*Credentials, error) {
	cas, err := nodehttp.ParseCAs(b.CAPEM)
	if err != nil {
		return nil, err
	}
	conn, err := nodehttp.New(&nodehttp.Material{PlatformURL: b.PlatformURL, CAs: cas}, o.HTTP)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	csr, err := certificateRequest(key, b.InstanceID)
	if err != nil {
		return nil, err
	}
	var answer nodeapi.EnrollResponse
	call := nodehttp.Call{
		Doing: "enroll this node", Method: http.MethodPost, Path: nodeapi.PathEnroll, Into: &answer,
		Secrets: []secret.Text{b.Token},
		Body: nodeapi.EnrollRequest{
			BootstrapToken: b.Token.Reveal(), CSRPEM: csr, AgentVersion: o.AgentVersion, InstanceID: b.InstanceID,
			DMIUUID: o.DMIUUID, Architecture: o.Architecture,
		},
	}
	err = o.Backoff.Run(ctx, o.Notify, func(ctx context.Context) error {
		answer = nodeapi.EnrollResponse{}
		return conn.Do(ctx, call)
	})
	if err != nil {
		return nil, explain(err)
	}
	c, err := accept(answer, key, b, conn.URL(), cas, o.now())
	if err != nil {
		return nil, fault.New(fault.Broken, fault.Platform, "look into the platform's log; nothing was changed on this node",
			"enroll this node at %s: the platform's answer is refused: %w", conn.URL(), err)
	}
	return c, nil
}

// explain gives a refusal of the token its remedy, also where a platform has no code for it.
func explain(err error) error {
	e, ok := errors.AsType[*nodehttp.StatusError](err)
	if !ok {
		return err
	}
	refused := e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden ||
		e.Code == nodeapi.CodeTokenRefused ||
		e.Status == http.StatusUnprocessableEntity && strings.Contains(strings.ToLower(e.Message), "token")
	if !refused {
		return err
	}
	return fault.New(fault.Refuse, fault.Platform,
		"the token is unknown, expired, another instance's or used by another key: "+hintToken, "%w", err)
}

// accept checks a platform's answer against our key, our CA and what we know of ourselves, and
// turns it into credentials. Everything is checked before anything is replaced.
func accept(a nodeapi.EnrollResponse, key ed25519.PrivateKey, b Bootstrap, url string, cas []*x509.Certificate, now time.Time) (*Credentials, error) {
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
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case !ownKey(leaf, key):
		return nil, errors.New("the certificate isn't for this node's key")
	case leaf.IsCA:
		return nil, errors.New("the certificate is a CA's")
	case !validInstance(a.InstanceID):
		return nil, fmt.Errorf("%.60q isn't an instance ID", a.InstanceID)
	case leaf.Subject.CommonName != a.InstanceID:
		return nil, fmt.Errorf("the certificate is for %.60q, the answer for instance %s", leaf.Subject.CommonName, a.InstanceID)
	case b.InstanceID != "" && !strings.EqualFold(b.InstanceID, a.InstanceID):
		return nil, fmt.Errorf("it is for instance %s, this node is %s", a.InstanceID, b.InstanceID)
	case !leaf.NotBefore.Before(leaf.NotAfter) || leaf.NotAfter.Sub(leaf.NotBefore) > maxLifetime:
		return nil, fmt.Errorf("the certificate is valid from %s to %s", stamp(leaf.NotBefore), stamp(leaf.NotAfter))
	case !now.Before(leaf.NotAfter):
		return nil, fmt.Errorf("the certificate ended at %s and this machine's clock says %s", stamp(leaf.NotAfter), stamp(now))
	}
	// A root has no place among the intermediates: neither side needs to send it.
	kept := make([]*x509.Certificate, 0, len(intermediates))
	for _, c := range intermediates {
		if c.CheckSignatureFrom(c) != nil && !shareCA([]*x509.Certificate{c}, cas) {
			kept = append(kept, c)
		}
	}
	if err := chains(leaf, kept, cas, now); err != nil {
		return nil, fmt.Errorf("the certificate doesn't lead to the CA that this node trusts: %w", err)
	}
	c := &Credentials{
		InstanceID: a.InstanceID, PlatformURL: url, CertificateID: printable(a.CertificateID), EnrolledAt: now,
		Leaf: leaf, Intermediates: kept, CAs: cas, key: key,
	}
	// By way of the file's form, so that what is returned is what a restart will read.
	u, err := c.unit()
	if err != nil {
		return nil, err
	}
	return u.credentials()
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
