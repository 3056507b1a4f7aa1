package enroll

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

// issueBy has the platform sign nodes' certificates by another CA, which no certificate leads to, and tell of both.
func (p *platform) issueBy(next *pkitest.CA) {
	p.set(func() {
		p.issuer, p.policy, p.bundle = next, nodeapi.RenewIssued, string(p.ca.PEM())+string(next.PEM())
	})
}

// TestCertificateByTheNextCA: the CA rolled while a node was off, or wasn't enrolled yet, from one that can't vouch for
// the next by a certificate. It does by its signature.
func TestCertificateByTheNextCA(t *testing.T) {
	p := newPlatform(t)
	o, _ := ended(t, p)
	next := pkitest.NewCA(t, "Powernode CA 2")
	p.issueBy(next)
	p.failCA = 1
	if _, _, err := Ensure(t.Context(), o); fault.KindOf(err) != fault.Retry {
		t.Errorf("%v", err)
	}
	c, was, err := Ensure(t.Context(), o)
	if err != nil || was != Expired || c.Leaf.CheckSignatureFrom(next.Cert) != nil || len(c.CAs) != 2 || len(p.byKey) != 1 {
		t.Fatalf("%v, %v, %v, %d certificates", c, was, err, len(p.byKey))
	}
	if again, err := Load(o.Dir, o.now()); err != nil || again.CABundleSHA256() != bundleSum(p.bundle) || !again.Leaf.Equal(c.Leaf) {
		t.Errorf("%v, %v", again, err)
	}
	p = newPlatform(t)
	p.issueBy(next)
	if c, was, err := Ensure(t.Context(), p.options(t.TempDir())); err != nil || was != None || len(c.CAs) != 2 {
		t.Errorf("%v, %v, %v", c, was, err)
	}
}

// TestCertificateByAThief: who has a server's key, and no CA's, has no node follow him by way of a certificate either.
func TestCertificateByAThief(t *testing.T) {
	p := newPlatform(t)
	o, old := ended(t, p)
	p.issueBy(pkitest.NewCA(t, "Powernode CA"))
	p.signed = bundleSum(string(p.ca.PEM()))
	_, _, err := Ensure(t.Context(), o)
	if fault.KindOf(err) != fault.Broken || !strings.Contains(err.Error(), errOtherCA.Error()) {
		t.Errorf("%v", err)
	}
	if s, err := Inspect(o.Dir, Wish{}, o.now()); err != nil || !s.Credentials.Leaf.Equal(old.Leaf) || len(s.Credentials.CAs) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestBundleByAnEndedCA: the key of a CA that has ended says nothing more, not even of a time when it hadn't.
func TestBundleByAnEndedCA(t *testing.T) {
	p := newPlatform(t)
	past := pkitest.NewCA(t, "Powernode CA 0")
	short := *past.Cert
	short.NotAfter = time.Now().Add(-time.Hour)
	past.Cert = past.Sign(&short, past.Cert.PublicKey)
	trusted := bytes.Join([][]byte{past.PEM(), p.ca.PEM()}, nil)
	o := p.options(t.TempDir())
	o.Discover = func(context.Context) (Bootstrap, error) {
		b := p.bootstrap()
		b.CAPEM = trusted
		return b, nil
	}
	if c, _, err := Ensure(t.Context(), o); err != nil || len(c.CAs) != 2 {
		t.Fatalf("%v, %v", c, err)
	}
	keeper := NewKeeper(Options{Dir: o.Dir})
	p.set(func() {
		p.signer, p.bundle = past, string(trusted)+string(pkitest.NewCA(t, "Powernode CA").PEM())
		p.now = func() time.Time { return time.Now().Add(-2 * time.Hour) }
	})
	if err := keeper.AdoptCA(t.Context()); fault.KindOf(err) == fault.Retry || err == nil || !strings.Contains(err.Error(), "its signer isn't vouched for") {
		t.Errorf("%v", err)
	}
	if c, err := keeper.Credentials(); err != nil || len(c.CAs) != 2 {
		t.Errorf("%v, %v", c, err)
	}
}
