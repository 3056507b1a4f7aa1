package enroll

import (
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

// roll is a platform's CA on its way to the next one.
type roll struct {
	p        *platform
	old, new *pkitest.CA
	cross    *x509.Certificate // the new one, by the old one
}

func newRoll(t *testing.T, p *platform) *roll {
	t.Helper()
	next := pkitest.NewCA(t, "Powernode CA 2")
	tmpl := *next.Cert
	return &roll{p: p, old: p.ca, new: next, cross: p.ca.Sign(&tmpl, next.Cert.PublicKey)}
}

// prepare tells of both.
func (r *roll) prepare() {
	r.p.set(func() { r.p.bundle = string(r.old.PEM()) + string(r.new.PEM()) })
}

// activate has the new one sign, and send the cross-certificate along.
func (r *roll) activate() {
	web := r.new.Issue(r.new.Web())
	web.Certificate = append(web.Certificate, r.cross.Raw)
	r.p.set(func() {
		r.p.issuer, r.p.web, r.p.signer, r.p.lead = r.new, web, r.new, []*x509.Certificate{r.cross}
		r.p.answer = func(a *nodeapi.EnrollResponse) {
			a.CAChainPEM = string(pkitest.EncodePEM(r.cross)) + string(r.old.PEM())
		}
	})
}

// retire tells of the new one only.
func (r *roll) retire() { r.p.set(func() { r.p.bundle = string(r.new.PEM()) }) }

func (s *service) follow(want string) {
	s.t.Helper()
	s.ok(s.keeper.AdoptCA(s.t.Context()))
	if got := s.status().CABundleSHA256; got != bundleSum(want) {
		s.t.Fatalf("the bundle is %s, want %s", got, bundleSum(want))
	}
	s.ok(s.beat())
}

// TestCARolls follows every step of it, with connections that go on.
func TestCARolls(t *testing.T) {
	s := newService(t, newPlatform(t))
	r := newRoll(t, s.p)
	s.follow(string(r.old.PEM()))
	r.prepare()
	s.follow(s.p.bundle)
	r.activate()
	s.ok(s.beat())
	s.ok(s.keeper.Rotate(t.Context()))
	s.ok(s.beat())
	c, err := s.keeper.Credentials()
	s.ok(err)
	if c.Leaf.CheckSignatureFrom(r.new.Cert) != nil || len(c.CAs) != 2 {
		t.Errorf("%v by %s", c, c.Leaf.Issuer)
	}
	r.retire()
	s.follow(string(r.new.PEM()))
	if got := s.status().Situation; got != Valid {
		t.Errorf("afterwards %v", got)
	}
	s.restart(Options{})
	s.ok(s.beat())
}

// TestCARolledWhileOff has a node miss the preparation: the cross-certificate leads it on.
func TestCARolledWhileOff(t *testing.T) {
	s := newService(t, newPlatform(t))
	r := newRoll(t, s.p)
	r.prepare()
	r.activate()
	s.ok(s.beat())
	s.ok(s.keeper.Rotate(t.Context()))
	s.ok(s.keeper.AdoptCA(t.Context()))
	if c, err := s.keeper.Credentials(); err != nil || len(c.CAs) != 2 || s.status().CABundleSHA256 != bundleSum(s.p.bundle) {
		t.Errorf("%v, %d CAs", err, len(c.CAs))
	}
	s.ok(s.beat())
}

// TestCARolledPastTheCertificate has the CA of the node's certificate retired before it was replaced.
func TestCARolledPastTheCertificate(t *testing.T) {
	for _, taken := range []bool{true, false} {
		s := newService(t, newPlatform(t))
		r := newRoll(t, s.p)
		r.prepare()
		r.activate()
		r.retire()
		s.ok(s.keeper.AdoptCA(t.Context()))
		if got := s.status(); got.Situation != CARolled {
			t.Fatalf("%v", got)
		}
		if !taken {
			s.refuse(s.serial(), nodeapi.CodeUnauthorized)
			s.p.set(func() { s.p.policy = nodeapi.RenewIssued })
		}
		o := s.p.options(s.dir)
		o.Discover = nil
		c, was, err := Ensure(t.Context(), o)
		if err != nil || was != CARolled || c.Leaf.CheckSignatureFrom(r.new.Cert) != nil {
			t.Fatalf("taken %v: %v, %v", taken, was, err)
		}
		s.ok(s.beat())
	}
}

// TestBundlesRefused stay away, and nothing changes.
func TestBundlesRefused(t *testing.T) {
	other := pkitest.NewCA(t, "Other CA")
	for _, c := range []struct{ name, bundle, text string }{
		{"another's", string(other.PEM()), "doesn't lead to any CA of it"},
		{"empty", "", "no PEM certificate"},
		{"damaged", "-----BEGIN CERTIFICATE-----\n", "no PEM certificate"},
		{"a node's certificate", string(pkitest.EncodePEM(other.Issue(other.Node("x")).Leaf)), "isn't a CA's"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newService(t, newPlatform(t))
			before := readDir(t, s.dir)
			s.p.set(func() { s.p.bundle = c.bundle })
			err := s.keeper.AdoptCA(t.Context())
			if fault.KindOf(err) == fault.Retry || err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v", err)
			}
			if readDir(t, s.dir) != before {
				t.Error("the disk changed")
			}
			// A rotation is worth having all the same.
			was := s.status().CABundleSHA256
			s.ok(s.keeper.Rotate(t.Context()))
			if got := s.status().CABundleSHA256; got != was {
				t.Error("the bundle came with the rotation")
			}
			s.ok(s.beat())
		})
	}
	t.Run("over a connection that nobody vouches for", func(t *testing.T) {
		s := newService(t, newPlatform(t))
		s.p.set(func() {
			s.p.bundle = string(s.p.ca.PEM()) + string(other.PEM())
			s.p.web = other.Issue(other.Web())
		})
		if err := s.keeper.AdoptCA(t.Context()); fault.KindOf(err) != fault.Refuse {
			t.Errorf("%v", err)
		}
		if c, err := s.keeper.Credentials(); err != nil || len(c.CAs) != 1 {
			t.Errorf("%v, %v", c, err)
		}
	})
}

// TestBundleOfAThief: who has a server's key, and no CA's, gives nodes no CA.
func TestBundleOfAThief(t *testing.T) {
	s := newService(t, newPlatform(t))
	thief := pkitest.NewCA(t, "Powernode CA")
	both := string(s.p.ca.PEM()) + string(thief.PEM())
	for name, alter := range map[string]func(){
		"signed by himself":            func() { s.p.signer, s.p.bundle = thief, both },
		"signed by himself, with ours": func() { s.p.signer, s.p.bundle, s.p.lead = thief, both, []*x509.Certificate{s.p.ca.Cert} },
	} {
		s.p.set(alter)
		if err := s.keeper.AdoptCA(t.Context()); fault.KindOf(err) != fault.Refuse {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What the CA signed before is no answer to a new question, and of another bundle it says nothing.
	s.p.set(func() { s.p.signer, s.p.lead, s.p.signed = s.p.ca, nil, bundleSum(string(s.p.ca.PEM())) })
	if err := s.keeper.AdoptCA(t.Context()); err == nil || !strings.Contains(err.Error(), "has not signed this bundle") {
		t.Errorf("%v", err)
	}
	if c, err := s.keeper.Credentials(); err != nil || len(c.CAs) != 1 {
		t.Errorf("%v, %v", c, err)
	}
}

// TestShutOut has the platform end the handshake for the node's certificate, as where its CA was retired.
func TestShutOut(t *testing.T) {
	s := newService(t, newPlatform(t))
	r := newRoll(t, s.p)
	s.ok(s.beat())
	r.prepare()
	r.activate()
	r.retire()
	s.p.set(func() { s.p.policy, s.p.taken = nodeapi.RenewIssued, r.new.Cert })
	s.client.Close()
	if err := s.beat(); !errors.Is(err, nodehttp.ErrOwnCertificate) || !s.status().Shut {
		t.Fatalf("%v, %+v", err, s.status())
	}
	// What needs no certificate goes on, and leads back in.
	s.ok(s.keeper.AdoptCA(t.Context()))
	if got := s.status().Situation; got != CARolled {
		t.Errorf("%v", got)
	}
	s.ok(s.keeper.Renew(t.Context()))
	s.ok(s.beat())
	if got := s.status(); got.Situation != Valid || got.Shut {
		t.Errorf("%+v", got)
	}
}
