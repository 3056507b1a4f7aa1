package enroll

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

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

// call makes the call until the platform answers, and returns the connection of the answer. fresh runs before
// each attempt: it clears what the last one left, and puts into the request what is to be of now.
func (t talk) call(ctx context.Context, call nodehttp.Call, fresh func() error) (*nodehttp.Conn, error) {
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
		if err := fresh(); err != nil {
			return fmt.Errorf("%s: %w", call.Doing, err)
		}
		return conn.Do(ctx, call)
	})
	conn.Close()
	return conn, err
}

// doubt has the next call ask for the time, where the node goes by the platform's, and reports whether it will.
func (t talk) doubt() bool {
	clock, ok := t.o.Clock.(interface{ Doubt() })
	if !ok || t.local {
		return false
	}
	clock.Doubt()
	return true
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
	t := talk{o, base.stranger(), b.LocalClock}
	conn, err := t.call(ctx, nodehttp.Call{
		Doing: doing, Method: http.MethodPost, Path: nodeapi.PathEnroll, Into: &answer,
		Secrets: []secret.Text{b.Token},
		Body: nodeapi.EnrollRequest{
			BootstrapToken: b.Token.Reveal(), CSRPEM: csr, AgentVersion: o.AgentVersion, InstanceID: b.InstanceID,
			DMIUUID: o.DMIUUID, Architecture: o.Architecture,
		},
	}, func() error { answer = nodeapi.EnrollResponse{}; return nil })
	if err != nil {
		return nil, explain(err)
	}
	base.PlatformURL = conn.URL()
	return o.judge(ctx, doing, answer, expected{base: base, key: key})
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
