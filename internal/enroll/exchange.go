package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/secret"
)

const hintUnchanged = "look into the platform's log; nothing was changed on this node"

// talk is one exchange with the platform about a certificate: the time first, where the node goes by the
// platform's, and then the call.
type talk struct {
	o     Options
	m     *nodehttp.Material
	local bool // the node goes by its own clock
}

// call makes the call until the platform answers, and returns the connection of the answer. clear runs before
// each attempt.
func (t talk) call(ctx context.Context, call nodehttp.Call, clear func()) (*nodehttp.Conn, error) {
	if err := t.o.askTime(ctx, t.m, t.local); err != nil {
		return nil, fmt.Errorf("%s: %w", call.Doing, err)
	}
	if err := t.o.online(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", call.Doing, err)
	}
	conn, err := nodehttp.New(t.m, t.o.http())
	if err != nil {
		return nil, err
	}
	err = t.o.Backoff.Run(ctx, t.o.Notify, func(ctx context.Context) error {
		clear()
		return conn.Do(ctx, call)
	})
	conn.Close()
	return conn, err
}

func (o Options) online(ctx context.Context) error {
	if o.Online == nil {
		return nil
	}
	return o.Online(ctx)
}

// askTime makes sure of a time that may judge the platform's certificate.
func (o Options) askTime(ctx context.Context, m *nodehttp.Material, local bool) error {
	if o.Clock == nil || local || !o.Clock.Due() {
		return nil
	}
	if err := o.online(ctx); err != nil {
		return err
	}
	return o.Backoff.Run(ctx, o.Notify, func(ctx context.Context) error { return o.Clock.Ask(ctx, m, o.http()) })
}

// exchange sends the token and the certificate request until the platform answers, and returns what
// the answer is worth. It writes nothing.
func exchange(ctx context.Context, o Options, b Bootstrap, key nodeKey) (*Credentials, error) {
	const doing = "enroll this node"
	base, err := b.base()
	if err != nil {
		return nil, err
	}
	_, csr, err := certificateRequest(key, b.InstanceID)
	if err != nil {
		return nil, err
	}
	var answer nodeapi.EnrollResponse
	t := talk{o, &nodehttp.Material{PlatformURL: b.PlatformURL, CAs: base.CAs, Proxy: base.Proxy()}, b.LocalClock}
	conn, err := t.call(ctx, nodehttp.Call{
		Doing: doing, Method: http.MethodPost, Path: nodeapi.PathEnroll, Into: &answer,
		Secrets: []secret.Text{b.Token},
		Body: nodeapi.EnrollRequest{
			BootstrapToken: b.Token.Reveal(), CSRPEM: csr, AgentVersion: o.AgentVersion, InstanceID: b.InstanceID,
			DMIUUID: o.DMIUUID, Architecture: o.Architecture,
		},
	}, func() { answer = nodeapi.EnrollResponse{} })
	if err != nil {
		return nil, explain(err)
	}
	base.PlatformURL = conn.URL()
	return o.judge(doing, answer, expected{base: base, key: key, conn: conn})
}

// base returns what credentials by this bootstrap begin with.
func (b Bootstrap) base() (Credentials, error) {
	cas, err := nodehttp.ParseCAs(b.CAPEM)
	if err != nil {
		return Credentials{}, err
	}
	if _, err := nodehttp.ParseProxy(b.Proxy.Reveal()); err != nil {
		return Credentials{}, err
	}
	return Credentials{
		InstanceID: b.InstanceID, PlatformURL: b.PlatformURL, CAs: cas, caPEM: encodeCertificates(cas),
		LocalClock: b.LocalClock, proxy: b.Proxy,
	}, nil
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

// rotate replaces the certificate over itself, by one for a new key. What cur is worth by then is the
// platform's to say.
func rotate(ctx context.Context, o Options, d *durable.Dir, cur *Credentials) (*Credentials, error) {
	const doing = "rotate this node's certificate"
	key, err := pendingKey(ctx, d, o, forRotate, cur)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	_, csr, err := certificateRequest(key, cur.InstanceID)
	if err != nil {
		return nil, err
	}
	var answer nodeapi.EnrollResponse
	conn, err := talk{o, cur.material, cur.LocalClock}.call(ctx, nodehttp.Call{
		Doing: doing, Method: http.MethodPost, Path: nodeapi.PathRefresh, Into: &answer,
		Body: nodeapi.RefreshRequest{CSRPEM: csr, AgentVersion: o.AgentVersion},
	}, func() { answer = nodeapi.EnrollResponse{} })
	if err != nil {
		return nil, also(err, dropAfter(d, forRotate, err))
	}
	return o.replace(d, doing, answer, expected{base: *cur, key: key, conn: conn}, rotated, forRotate)
}

// renew replaces a certificate that doesn't serve any more, by proving its key. A *Waiting in the error says
// that an operator is to approve it.
func renew(ctx context.Context, o Options, d *durable.Dir, cur *Credentials) (*Credentials, error) {
	const doing = "renew this node's certificate by its old key"
	key, err := pendingKey(ctx, d, o, forRenew, cur)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	der, csr, err := certificateRequest(key, cur.InstanceID)
	if err != nil {
		return nil, err
	}
	proof, err := prove(cur.key, nodeapi.RenewMessage(der))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	var answer nodeapi.RenewResponse
	m := &nodehttp.Material{PlatformURL: cur.PlatformURL, CAs: cur.CAs, Proxy: cur.Proxy()}
	conn, err := talk{o, m, cur.LocalClock}.call(ctx, nodehttp.Call{
		Doing: doing, Method: http.MethodPost, Path: nodeapi.PathRenew, Into: &answer,
		Body: nodeapi.RenewRequest{
			CSRPEM: csr, CertificatePEM: encodeCertificates([]*x509.Certificate{cur.Leaf}), Proof: proof,
			AgentVersion: o.AgentVersion, DMIUUID: o.DMIUUID,
		},
	}, func() { answer = nodeapi.RenewResponse{} })
	if err != nil {
		if nodehttp.CodeOf(err) == nodeapi.CodeRenewalRefused {
			err = fault.New(fault.Refuse, fault.Platform, "the platform doesn't renew this certificate: "+hintToken, "%w", err)
		}
		return nil, also(err, dropAfter(d, forRenew, err))
	}
	switch {
	case answer.Status == nodeapi.RenewWaiting:
		return nil, newWaiting(doing+" at "+conn.URL(), answer)
	case answer.Status != nodeapi.RenewIssued || answer.Certificate == nil:
		return nil, fault.New(fault.Broken, fault.Platform, hintUnchanged, "%s at %s: the platform's answer holds no certificate (status %.40q)", doing, conn.URL(), answer.Status)
	}
	return o.replace(d, doing, *answer.Certificate, expected{base: *cur, key: key, conn: conn}, renewed, forRenew)
}

// replace saves what an answer is worth in place of the credentials that it was asked for with, which stay as the
// previous pair.
func (o Options) replace(d *durable.Dir, doing string, a nodeapi.EnrollResponse, e expected, how origin, p purpose) (*Credentials, error) {
	next, err := o.judge(doing, a, e)
	if err != nil {
		// The next attempt is with another key, should the platform have an answer to this one that never serves.
		return nil, also(err, forgetPending(d, p))
	}
	next = e.base.succeed(next, how)
	if err := save(d, next); err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	o.Log.Info("the node has a new certificate", "credentials", next, "how", how)
	return next, forgetPending(d, p)
}

// dropAfter ends the wait of a key that the platform doesn't want, so that the next attempt has another one. A
// key that nobody judged goes on waiting.
func dropAfter(d *durable.Dir, p purpose, err error) error {
	switch nodehttp.StatusOf(err) {
	case http.StatusBadRequest, http.StatusConflict, http.StatusUnprocessableEntity:
		return forgetPending(d, p)
	}
	return nil
}

// also returns err with what went wrong beside it, on one line.
func also(err, beside error) error {
	switch {
	case beside == nil:
		return err
	case err == nil:
		return beside
	}
	return fmt.Errorf("%w (%w)", err, beside)
}
