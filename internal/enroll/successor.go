package enroll

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

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
	_, err = talk{o, cur.material, cur.LocalClock}.call(ctx, nodehttp.Call{
		Doing: doing, Method: http.MethodPost, Path: nodeapi.PathRefresh, Into: &answer,
		Body: nodeapi.RefreshRequest{CSRPEM: csr, AgentVersion: o.AgentVersion},
	}, func() error { answer = nodeapi.EnrollResponse{}; return nil })
	if err != nil {
		return nil, also(err, dropAfter(d, forRotate, err))
	}
	return o.replace(ctx, d, doing, answer, expected{base: *cur, key: key}, rotated, forRotate)
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
	var answer nodeapi.RenewResponse
	request := &nodeapi.RenewRequest{
		CSRPEM: csr, CertificatePEM: encodeCertificates([]*x509.Certificate{cur.Leaf}), AgentVersion: o.AgentVersion, DMIUUID: o.DMIUUID,
	}
	t := talk{o, cur.stranger(), cur.LocalClock}
	ask := func() (*nodehttp.Conn, error) {
		return t.call(ctx, nodehttp.Call{Doing: doing, Method: http.MethodPost, Path: nodeapi.PathRenew, Into: &answer, Body: request}, func() (err error) {
			// Of each attempt: the one before may have waited for long.
			answer, request.SignedAt = nodeapi.RenewResponse{}, o.now().UTC().Format(time.RFC3339)
			request.Proof, err = prove(cur.key, nodeapi.RenewMessage(request.SignedAt, der))
			return err
		})
	}
	conn, err := ask()
	if nodehttp.CodeOf(err) == nodeapi.CodeProofOutOfTime && t.doubt() {
		conn, err = ask() // the clock may have stood still together with the machine
	}
	if err != nil {
		return nil, also(notRenewed(err, cur.LocalClock), dropAfter(d, forRenew, err))
	}
	switch {
	case answer.Status == nodeapi.RenewWaiting:
		return nil, newWaiting(doing+" at "+conn.URL(), answer)
	case answer.Status != nodeapi.RenewIssued || answer.Certificate == nil:
		return nil, fault.New(fault.Broken, fault.Platform, hintUnchanged, "%s at %s: the platform's answer holds no certificate (status %.40q)", doing, conn.URL(), answer.Status)
	}
	return o.replace(ctx, d, doing, *answer.Certificate, expected{base: *cur, key: key}, renewed, forRenew)
}

// notRenewed gives a refusal of a renewal its remedy; local says that the node goes by its own clock.
func notRenewed(err error, local bool) error {
	switch code := nodehttp.CodeOf(err); {
	case code == nodeapi.CodeRenewalRefused:
		return fault.New(fault.Refuse, fault.Platform, "the platform doesn't renew this certificate: "+hintToken, "%w", err)
	case code == nodeapi.CodeProofOutOfTime && local:
		return fault.New(fault.Refuse, fault.Platform, "set this machine's clock: the node was told to go by it (clock=local)", "%w", err)
	case code == nodeapi.CodeProofOutOfTime:
		return fault.New(fault.Refuse, fault.Platform, "look at the platform's clock: it signs another time than it goes by", "%w", err)
	}
	return err
}

// replace saves what an answer is worth in place of the credentials that it was asked for with, which stay as the
// previous pair.
func (o Options) replace(ctx context.Context, d *durable.Dir, doing string, a nodeapi.EnrollResponse, e expected, how origin, p purpose) (*Credentials, error) {
	next, err := o.judge(ctx, doing, a, e)
	if fault.KindOf(err) == fault.Retry {
		return nil, err
	}
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
	if nodehttp.CodeOf(err) == nodeapi.CodeProofOutOfTime {
		return nil // it is of the clock
	}
	switch nodehttp.StatusOf(err) {
	case http.StatusBadRequest, http.StatusConflict, http.StatusUnprocessableEntity:
		return forgetPending(d, p)
	}
	return nil
}
