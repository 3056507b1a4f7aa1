package operatorclient

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// followTimeout bounds the asking for a new CA bundle.
const followTimeout = 15 * time.Second

// CA lists the platform's authorities.
func (c *Client) CA(ctx context.Context) (operatorapi.CAList, error) {
	return call[operatorapi.CAList](ctx, c, http.MethodGet, operatorapi.PathCA, nil)
}

// PrepareCA makes the next authority and has it told to the nodes.
func (c *Client) PrepareCA(ctx context.Context) (operatorapi.CAList, error) {
	return c.prepareCA(ctx, operatorapi.CAPrepare{})
}

// TakeUpCA is PrepareCA with an authority whose key the platform has and whose record it lost.
func (c *Client) TakeUpCA(ctx context.Context, id string) (operatorapi.CAList, error) {
	return c.prepareCA(ctx, operatorapi.CAPrepare{TakeUp: id})
}

func (c *Client) prepareCA(ctx context.Context, in operatorapi.CAPrepare) (operatorapi.CAList, error) {
	return call[operatorapi.CAList](ctx, c, http.MethodPost, operatorapi.PathCAPrepare, in)
}

// ActivateCA lets the prepared authority sign from now on.
func (c *Client) ActivateCA(ctx context.Context) (operatorapi.CAList, error) {
	return call[operatorapi.CAList](ctx, c, http.MethodPost, operatorapi.PathCAActivate, struct{}{})
}

// RetireCA ends an authority.
func (c *Client) RetireCA(ctx context.Context, in operatorapi.CARetire) (operatorapi.CAList, error) {
	return call[operatorapi.CAList](ctx, c, http.MethodPost, operatorapi.PathCARetire, in)
}

// FollowCA has learned called with the CA bundle, PEM, when the platform says that another one is to be
// trusted than the Config holds, or with why that bundle isn't taken. It is called before the call that
// learned it returns, at most once. The Client itself goes on with the CA that it was made with. FollowCA
// must come before the first call.
func (c *Client) FollowCA(learned func(caPEM string, err error)) { c.learned = learned }

// follow asks for the bundle if the platform, which the present one vouches for, has another. Who that call
// didn't succeed with the operator's token isn't asked.
func (c *Client) follow(ctx context.Context, said string, state *tls.ConnectionState) {
	if c.learned == nil || said == "" || said == sha256Hex(c.cfg.CAPEM) || !c.following.CompareAndSwap(false, true) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, followTimeout)
	defer cancel()
	bundle, err := call[nodeapi.CAResponse](ctx, c, http.MethodGet, nodeapi.PathCA, nil)
	if err != nil {
		c.learned("", err)
		return
	}
	if err := c.checkBundle(bundle.BundlePEM, state); err != nil {
		c.learned("", fmt.Errorf("the new CA bundle of the platform at %s: %w", c.base, err))
		return
	}
	c.learned(bundle.BundlePEM, nil)
}

// checkBundle refuses a bundle that isn't one, or under which the platform itself couldn't be reached: better
// the old one than none.
func (c *Client) checkBundle(bundle string, state *tls.ConnectionState) error {
	if len(bundle) > configLimit/2 {
		return fmt.Errorf("it has %d bytes", len(bundle))
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for block, rest := pem.Decode([]byte(bundle)); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return err
		}
		if !cert.IsCA {
			return fmt.Errorf("%s is no CA", cert.Subject)
		}
		roots.AddCert(cert)
	}
	if state == nil || len(state.PeerCertificates) == 0 {
		return errors.New("it came over a connection without TLS")
	}
	for _, cert := range state.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: c.base.Hostname(), Roots: roots, Intermediates: between})
	if err != nil {
		return fmt.Errorf("the platform's own certificate isn't good under it: %w", err)
	}
	return nil
}

func sha256Hex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
