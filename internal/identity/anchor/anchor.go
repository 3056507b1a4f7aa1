// Package anchor gets the CA certificate that a node's trust in its platform begins with, where the node
// was given only its fingerprint: from a URL, or from the platform itself.
//
// It promises that nothing is returned but certificates whose SHA-256 is one that was given, whoever
// answered; that what it sends on the way are requests that say nothing of the node; and that an answer is
// bounded in size and time. It trusts the fingerprint's source, and nobody on the network: TLS
// certificates of who answers aren't judged, because the fingerprint decides.
package anchor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// Anchor is what a node was told of its platform's CA.
type Anchor struct {
	// PEM is a bundle, nil where there is none.
	PEM []byte
	// SHA256 are fingerprints as identity.ParseFingerprints returns them. Where there is one, no other
	// certificate counts.
	SHA256 []string
	// URL is where a bundle can be had; the zero one is the platform itself.
	URL identity.CAURL
	// PlatformURL is as nodehttp.ParsePlatformURL returns it.
	PlatformURL string
	// Proxy is an HTTP proxy to go through; nil is none.
	Proxy *url.URL
}

// Of returns what an identity says of the CA.
func Of(i identity.Identity) Anchor {
	return Anchor{PEM: i.CAPEM, SHA256: i.CASHA256, URL: i.CAURL, PlatformURL: i.PlatformURL, Proxy: i.Proxy.URL()}
}

// The bounds of one attempt to get a bundle.
const (
	fetchTimeout = 20 * time.Second
	redirectsMax = 3
	agentName    = "powernode-agent"
)

// Resolve returns the CA bundle, in PEM. The network is asked only where there is a fingerprint and no
// bundle, once; an error of kind Retry says that asking again may help.
func (a Anchor) Resolve(ctx context.Context) ([]byte, error) {
	switch {
	case len(a.PEM) > 0 && len(a.SHA256) > 0:
		bundle, err := identity.SelectCAs(a.PEM, a.SHA256)
		if err != nil {
			return nil, fault.New(fault.Refuse, fault.Verify, "give the CA certificate, or the fingerprint, of one and the same platform", "check the CA certificate: %w", err)
		}
		return bundle, nil
	case len(a.PEM) > 0:
		return a.PEM, nil
	case len(a.SHA256) == 0:
		return nil, fault.New(fault.Refuse, fault.Input, "give its SHA-256 fingerprint, too (openssl x509 -noout -fingerprint -sha256 -in FILE), or the certificate itself",
			"get the CA certificate: there is no fingerprint to prove it by")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTimeout, fmt.Errorf("no answer within %s", fetchTimeout))
	defer cancel()
	from, fetch := a.URL.String(), a.fetchURL
	if a.URL.IsZero() {
		from, fetch = a.PlatformURL+nodeapi.PathCA, a.fetchPlatform
	}
	bundle, err := fetch(ctx)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = context.Cause(ctx)
		}
		kind := fault.Retry
		if answered, ok := errors.AsType[answerError](err); ok && !answered.passing {
			kind = fault.Refuse
		}
		return nil, fault.New(kind, fault.Platform, "check the URL and the network between, or give the CA certificate itself", "get the CA certificate from %s: %w", from, err)
	}
	chosen, err := identity.SelectCAs(bundle, a.SHA256)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Verify, "compare the fingerprint with the platform's; if it is right, somebody else answers",
			"check the CA certificate that %s gave: %w", from, err)
	}
	return chosen, nil
}

// answerError is an answer that isn't what was asked for; passing tells that it may be later.
type answerError struct {
	err     error
	passing bool
}

func (e answerError) Error() string { return e.err.Error() }

// fetchURL gets a bundle of PEM or one certificate in DER.
func (a Anchor) fetchURL(ctx context.Context) ([]byte, error) {
	// It is a web server of anybody's.
	client := a.client(tls.VersionTLS12, func(r *http.Request, via []*http.Request) error {
		if len(via) > redirectsMax {
			return fmt.Errorf("more than %d redirects", redirectsMax)
		}
		r.Header.Del("Referer") // the query is for who was asked first
		_, err := identity.ParseCAURL(r.URL.String())
		return err
	})
	defer client.CloseIdleConnections()
	body, _, err := get(ctx, client, a.URL.Reveal(), nodehttp.MaxCABytes)
	if err != nil {
		return nil, err
	}
	bundle, err := identity.ParseCA(string(body))
	if der, derErr := x509.ParseCertificate(body); derErr == nil {
		bundle, err = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der.Raw}), nil
	}
	if err != nil {
		return nil, answerError{err: err}
	}
	return bundle, nil
}

// fetchPlatform asks the platform for its bundle. A platform that doesn't know the question may still send
// its CA's certificate along with its own.
func (a Anchor) fetchPlatform(ctx context.Context) ([]byte, error) {
	client := a.client(tls.VersionTLS13, func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse })
	defer client.CloseIdleConnections()
	body, state, err := get(ctx, client, a.PlatformURL+nodeapi.PathCA, nodeapi.MaxResponse)
	var bundle []byte
	if err == nil {
		bundle, err = bundleOf(body)
	}
	if state != nil {
		for _, c := range state.PeerCertificates {
			if one := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); c.IsCA && a.fits(one) {
				return one, nil
			}
		}
	}
	return bundle, err
}

func (a Anchor) fits(bundle []byte) bool {
	_, err := identity.SelectCAs(bundle, a.SHA256)
	return err == nil
}

func bundleOf(body []byte) ([]byte, error) {
	var envelope nodeapi.Envelope
	var answer nodeapi.CAResponse
	if err := json.Unmarshal(body, &envelope); err != nil || !envelope.Success {
		return nil, answerError{err: errors.New("the answer isn't a node_api answer")}
	}
	if err := json.Unmarshal(envelope.Data, &answer); err != nil {
		return nil, answerError{err: errors.New("the platform's answer isn't as agreed")}
	}
	bundle, err := identity.ParseCA(answer.BundlePEM)
	if err != nil {
		return nil, answerError{err: err}
	}
	return bundle, nil
}
