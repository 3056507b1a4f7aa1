package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/signedtime"
)

// offeredCA asks m's platform which CAs to trust, and returns them and their bundle if the present ones, m's, have
// signed that, now, and the new ones vouch for the connection too; nil where it is the bundle that the node has. That
// the present ones vouch for the connection isn't enough: who has stolen a server's key would give the node a CA of
// his own. local says that the node goes by its own clock.
func (o Options) offeredCA(ctx context.Context, m *nodehttp.Material, local bool, has string) ([]*x509.Certificate, string, error) {
	const doing = "ask which CA to trust"
	var answer nodeapi.CAResponse
	conn, err := talk{o, m, local}.call(ctx, nodehttp.Call{
		Doing: doing, Method: http.MethodGet, Path: nodeapi.PathCA, Into: &answer,
	}, func() error { answer = nodeapi.CAResponse{}; return nil })
	if err != nil || answer.BundlePEM == has {
		return nil, "", err
	}
	cas, err := adoptable(answer.BundlePEM, conn, o.now())
	if err == nil {
		var said signedtime.Reading
		if said, err = signedtime.Ask(ctx, m, o.HTTP); err != nil {
			return nil, "", fmt.Errorf("%s: %w", doing, err)
		}
		// The time that it says is the signer's word, and the key of a CA that has ended may be anybody's.
		if err = said.Vouched(o.now()); err == nil && said.CABundleSHA256 != bundleSum(answer.BundlePEM) {
			err = errors.New("its CA has not signed this bundle")
		}
	}
	if err != nil {
		return nil, "", fault.New(fault.Broken, fault.Platform, hintUnchanged, "%s at %s: the platform's answer is refused: %w", doing, conn.URL(), err)
	}
	o.Log.Info("the node follows the platform's CA", "certificates", len(cas), "sha256", bundleSum(answer.BundlePEM))
	return cas, answer.BundlePEM, nil
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
