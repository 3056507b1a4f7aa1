package platform_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// certificates reads a PEM bundle.
func certificates(t *testing.T, bundle string) []*x509.Certificate {
	t.Helper()
	var list []*x509.Certificate
	for block, rest := pem.Decode([]byte(bundle)); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, cert)
	}
	return list
}

// askTime asks for the time and checks the signature by the signer's key.
func askTime(t *testing.T, p *platformtest.Platform) (time.Time, []*x509.Certificate) {
	t.Helper()
	nonce := strings.Repeat("0123456789abcdef", 4)
	var out nodeapi.TimeResponse
	p.Do(nil, http.MethodPost, nodeapi.PathTime, nodeapi.TimeRequest{Nonce: nonce}).Into(&out)
	at, err := time.Parse(time.RFC3339Nano, out.ServerTime)
	if err != nil || out.Nonce != nonce {
		t.Fatalf("%+v, %v", out, err)
	}
	signer := certificates(t, out.SignerPEM)
	if len(signer) == 0 {
		t.Fatal("no signer")
	}
	sum := sha256.Sum256(nodeapi.TimeMessage(out.Nonce, out.ServerTime, out.CABundleSHA256))
	if !ecdsa.VerifyASN1(signer[0].PublicKey.(*ecdsa.PublicKey), sum[:], out.Signature) {
		t.Error("the signature isn't by the signer")
	}
	return at, signer
}

func TestTime(t *testing.T) {
	p := platformtest.Start(t)
	p.Clock.Advance(24 * time.Hour)
	at, signer := askTime(t, p)
	if d := p.Clock.Now().Sub(at); d < 0 || d > time.Hour || at.Location() != time.UTC {
		t.Errorf("the time is %s", at)
	}
	if pinned := certificates(t, p.Config.CAPEM); len(signer) != 1 || !signer[0].Equal(pinned[0]) {
		t.Error("the signer isn't the pinned authority")
	}
	for name, tc := range map[string]struct {
		body   any
		status int
	}{
		"no nonce":  {nodeapi.TimeRequest{}, 422},
		"short":     {nodeapi.TimeRequest{Nonce: "00"}, 422},
		"upper":     {nodeapi.TimeRequest{Nonce: strings.Repeat("A", 64)}, 422},
		"long":      {nodeapi.TimeRequest{Nonce: strings.Repeat("0", 2000)}, 413},
		"line feed": {nodeapi.TimeRequest{Nonce: strings.Repeat("0", 63) + "\n"}, 422},
		"not JSON":  {strings.NewReader("x"), 400},
	} {
		if a := p.Do(nil, http.MethodPost, nodeapi.PathTime, tc.body); a.Status != tc.status || a.Envelope.Code == "" {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	defer p.Clock.Stop()()
	client := p.Client(nil)
	client.Transport.(*http.Transport).DisableKeepAlives = false
	for i := range 2000 {
		resp, err := client.Post(p.URL+nodeapi.PathTime, "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusTooManyRequests {
			if resp.Header.Get("Retry-After") != "1" {
				t.Errorf("Retry-After %q", resp.Header.Get("Retry-After"))
			}
			return
		}
		if resp.StatusCode != http.StatusUnprocessableEntity {
			t.Fatalf("call %d: %d", i, resp.StatusCode)
		}
	}
	t.Error("nothing bounds the calls of one address")
}

func TestCABundle(t *testing.T) {
	p := platformtest.Start(t)
	var out nodeapi.CAResponse
	p.Do(nil, http.MethodGet, nodeapi.PathCA, nil).Into(&out)
	if out.BundlePEM != p.Config.CAPEM || out.BundleSHA256 != fmt.Sprintf("%x", sha256.Sum256([]byte(out.BundlePEM))) {
		t.Errorf("%+v", out)
	}
	node := p.Enroll("n", "amd64")
	hb := heartbeat()
	hb.CABundleSHA256 = out.BundleSHA256
	var answer nodeapi.HeartbeatResponse
	p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, hb).Into(&answer)
	if answer.CABundleSHA256 != out.BundleSHA256 || answer.Refresh {
		t.Errorf("%+v", answer)
	}
	hb.CABundleSHA256 = "x"
	if a := p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, hb); a.Status != http.StatusUnprocessableEntity {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}
