package enroll

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// service is an enrolled node with its keeper and its client, as a service has them.
type service struct {
	t      *testing.T
	p      *platform
	dir    string
	keeper *Keeper
	client *nodeclient.Client
}

func newService(t *testing.T, p *platform) *service {
	t.Helper()
	s := &service{t: t, p: p, dir: t.TempDir()}
	if _, _, err := Ensure(t.Context(), p.options(s.dir)); err != nil {
		t.Fatal(err)
	}
	s.restart(Options{})
	return s
}

// restart begins a new process.
func (s *service) restart(o Options) {
	s.t.Helper()
	o.Dir = s.dir
	s.keeper = NewKeeper(o)
	client, err := nodeclient.New(nodeclient.Config{Credentials: s.keeper, Heard: s.keeper.Heard, HTTP: nodehttp.Options{Now: s.keeper.Now}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.client = client
	s.t.Cleanup(client.Close)
}

func (s *service) beat() error {
	_, err := s.client.Heartbeat(s.t.Context(), nodeapi.Heartbeat{})
	return err
}

// last is the serial number of the last heartbeat that was taken.
func (s *service) last() string {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if len(s.p.served) == 0 {
		return ""
	}
	return s.p.served[len(s.p.served)-1]
}

func (s *service) serial() string {
	s.t.Helper()
	c, err := s.keeper.Credentials()
	if err != nil {
		s.t.Fatal(err)
	}
	return c.Serial()
}

func (s *service) status() Status {
	s.t.Helper()
	st, err := s.keeper.Status()
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// stored is what the file says.
func (s *service) stored() unit {
	s.t.Helper()
	var u unit
	b, err := os.ReadFile(filepath.Join(s.dir, unitFile))
	if err == nil {
		err = json.Unmarshal(b, &u)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return u
}

func (s *service) refuse(serial string, code nodeapi.Code) {
	s.p.set(func() { s.p.refused[serial] = code })
}

func (s *service) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestRotateOnALivePool has the next request use the new certificate, and the TLS settings of the registry too.
func TestRotateOnALivePool(t *testing.T) {
	s := newService(t, newPlatform(t))
	s.ok(s.beat())
	first := s.serial()
	if s.last() != first {
		t.Fatalf("the platform saw %s, not %s", s.last(), first)
	}
	cfg, err := s.client.TLSConfig()
	s.ok(err)
	s.ok(s.keeper.Rotate(t.Context()))
	second := s.serial()
	if u := s.stored(); second == first || u.Previous == nil || u.Previous.Reason != rotated || u.KeyPEM == u.Previous.KeyPEM {
		t.Errorf("after the rotation: %s after %s, %+v", second, first, u.Previous)
	}
	if !s.status().Unused {
		t.Error("the new certificate counts as used")
	}
	s.ok(s.beat())
	if s.last() != second {
		t.Errorf("the platform saw %s, not %s", s.last(), second)
	}
	if u := s.stored(); u.Previous != nil || s.status().Unused {
		t.Errorf("the pair before is still there: %+v", u.Previous)
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}
	defer web.CloseIdleConnections()
	resp, err := web.Get(s.p.URL + "/who")
	s.ok(err)
	resp.Body.Close()
	cert, err := cfg.GetClientCertificate(&tls.CertificateRequestInfo{})
	if err != nil || serialOf(cert.Leaf) != second || resp.StatusCode != http.StatusOK {
		t.Errorf("the registry sees %v, %v, %d", cert, err, resp.StatusCode)
	}
	// A certificate that was taken doesn't have the connections made anew.
	m1, _ := s.keeper.Material()
	s.ok(s.beat())
	if m2, _ := s.keeper.Material(); m1 != m2 {
		t.Error("the same certificate, and yet another connection")
	}
	s.restart(Options{})
	s.ok(s.beat())
	if s.last() != second {
		t.Errorf("after a restart the platform saw %s", s.last())
	}
}

// TestLostRepliesOfSuccessors loses ten replies in a row, of a rotation and of a renewal, in processes of their own.
func TestLostRepliesOfSuccessors(t *testing.T) {
	for name, replace := range map[string]func(*Keeper, context.Context) error{"rotate": (*Keeper).Rotate, "renew": (*Keeper).Renew} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, newPlatform(t))
			first := s.serial()
			s.p.set(func() { s.p.lose, s.p.policy = 10, nodeapi.RenewIssued })
			for i := range 10 {
				s.restart(Options{})
				if err := replace(s.keeper, t.Context()); fault.KindOf(err) != fault.Retry || s.serial() != first {
					t.Fatalf("attempt %d: %v", i, err)
				}
			}
			s.ok(replace(s.keeper, t.Context()))
			if len(s.p.byKey) != 1 || s.p.asked != 11 || s.serial() == first {
				t.Errorf("%d certificates of %d requests", len(s.p.byKey), s.p.asked)
			}
			s.ok(s.beat())
			if s.last() != s.serial() {
				t.Errorf("the platform saw %s", s.last())
			}
			if entries, err := os.ReadDir(s.dir); err != nil || len(entries) != 2 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
			// The next one is with another key.
			s.ok(s.keeper.Rotate(t.Context()))
			if len(s.p.byKey) != 2 {
				t.Errorf("%d certificates", len(s.p.byKey))
			}
		})
	}
}

// TestNewCertificateRefused goes back to the pair before, and rotates again.
func TestNewCertificateRefused(t *testing.T) {
	for _, code := range []nodeapi.Code{nodeapi.CodeUnauthorized, nodeapi.CodeCertificateRevoked} {
		t.Run(string(code), func(t *testing.T) {
			s := newService(t, newPlatform(t))
			first := s.serial()
			s.ok(s.keeper.Rotate(t.Context()))
			second := s.serial()
			s.refuse(second, code)
			if err := s.beat(); nodehttp.StatusOf(err) != 401 {
				t.Fatalf("%v", err)
			}
			if u := s.stored(); s.serial() != first || u.Previous == nil || u.Previous.Reason != refused || u.Previous.Said.Code != code {
				t.Fatalf("%s after the refusal, %+v", s.serial(), u.Previous)
			}
			if got := s.status().Situation; got != Valid {
				t.Errorf("the pair before is %v", got)
			}
			s.restart(Options{})
			s.ok(s.beat())
			if u := s.stored(); s.last() != first || u.Previous != nil {
				t.Errorf("the platform saw %s, %+v", s.last(), u.Previous)
			}
			s.ok(s.keeper.Rotate(t.Context()))
			s.ok(s.beat())
			if got := s.last(); got == first || got == second {
				t.Errorf("the platform saw %s", got)
			}
		})
	}
}

// TestBothRefused never ends without a pair, and never goes round in a circle.
func TestBothRefused(t *testing.T) {
	s := newService(t, newPlatform(t))
	first := s.serial()
	s.ok(s.keeper.Rotate(t.Context()))
	second := s.serial()
	// A proxy's word, for both; then the truth: the first one's successor has been used.
	s.refuse(first, nodeapi.CodeUnauthorized)
	s.refuse(second, nodeapi.CodeUnauthorized)
	for range 4 {
		_ = s.beat()
	}
	if s.serial() != first || s.status().Situation != Valid {
		t.Errorf("%s, %v", s.serial(), s.status())
	}
	s.refuse(first, nodeapi.CodeCertificateSuperseded)
	_ = s.beat()
	if s.serial() != second || s.status().Situation != Valid {
		t.Errorf("%s, %v", s.serial(), s.status())
	}
	s.refuse(second, nodeapi.CodeCertificateRevoked)
	for range 4 {
		_ = s.beat()
	}
	if u := s.stored(); s.serial() != second || s.status().Situation != Revoked || u.Previous == nil {
		t.Errorf("%s, %v, %+v", s.serial(), s.status(), u.Previous)
	}
}

// TestWordsAreRemembered has a platform say no, and later say yes.
func TestWordsAreRemembered(t *testing.T) {
	for code, want := range map[nodeapi.Code]Situation{
		nodeapi.CodeCertificateRevoked: Revoked, nodeapi.CodeCertificateSuperseded: Superseded, nodeapi.CodeNodeInactive: Inactive,
		nodeapi.CodeCertificateExpired: Expired, nodeapi.CodeUnauthorized: Valid, "": Valid,
	} {
		t.Run(want.String()+" "+string(code), func(t *testing.T) {
			s := newService(t, newPlatform(t))
			serial := s.serial()
			before := readDir(t, s.dir)
			s.refuse(serial, code)
			if err := s.beat(); nodehttp.StatusOf(err) != 401 {
				t.Fatal(err)
			}
			if want == Valid && readDir(t, s.dir) != before {
				t.Error("a word without a meaning changed the disk")
			}
			s.restart(Options{})
			if got := s.status(); got.Situation != want || s.serial() != serial {
				t.Errorf("after a restart: %v", got)
			}
			_, err := Load(s.dir, time.Now())
			if (err == nil) != want.Usable() {
				t.Errorf("load: %v", err)
			}
			s.p.set(func() { clear(s.p.refused) })
			s.ok(s.beat())
			if got := s.status().Situation; got != Valid || s.last() != serial {
				t.Errorf("after a good answer: %v", got)
			}
		})
	}
	t.Run("rotation", func(t *testing.T) {
		s := newService(t, newPlatform(t))
		s.refuse(s.serial(), nodeapi.CodeCertificateSuperseded)
		if err := s.keeper.Rotate(t.Context()); nodehttp.CodeOf(err) != nodeapi.CodeCertificateSuperseded {
			t.Fatal(err)
		}
		if got := s.status().Situation; got != Superseded {
			t.Errorf("%v", got)
		}
	})
	t.Run("other failures", func(t *testing.T) {
		s := newService(t, newPlatform(t))
		m, _ := s.keeper.Material()
		before := readDir(t, s.dir)
		s.keeper.Heard(m, errors.New("the network"))
		s.keeper.Heard(&nodehttp.Material{}, nil)
		if readDir(t, s.dir) != before {
			t.Error("the disk changed")
		}
	})
}

// TestReplacedByAnother has another process enroll the node anew while the service runs.
func TestReplacedByAnother(t *testing.T) {
	s := newService(t, newPlatform(t))
	s.ok(s.beat())
	first := s.serial()
	o := s.p.options(s.dir)
	o.Now, o.Discover = true, nil
	c, was, err := Ensure(t.Context(), o)
	if err != nil || was != Valid || c.Serial() == first {
		t.Fatalf("%v, %v", was, err)
	}
	s.ok(s.beat())
	if s.last() != c.Serial() {
		t.Errorf("the platform saw %s, not %s", s.last(), c.Serial())
	}
	s.ok(os.Remove(filepath.Join(s.dir, unitFile)))
	if err := s.beat(); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "isn't enrolled") || fault.HintOf(err) == "" {
		t.Errorf("without credentials: %v", err)
	}
	if err := s.keeper.Rotate(t.Context()); fault.KindOf(err) != fault.Refuse {
		t.Errorf("rotate without credentials: %v", err)
	}
}

// TestPendingKeysOfTheirOwn has the key of a begun enrollment outlive a rotation.
func TestPendingKeysOfTheirOwn(t *testing.T) {
	s := newService(t, newPlatform(t))
	o := s.p.options(s.dir)
	s.p.set(func() { s.p.lose = 1 })
	o.Wish.InstanceID = "another"
	if _, _, err := Ensure(t.Context(), o); fault.KindOf(err) != fault.Retry && fault.KindOf(err) != fault.Refuse {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(s.dir, pendingFile))
	s.ok(err)
	s.p.set(func() { s.p.lose = 1 })
	if err := s.keeper.Rotate(t.Context()); fault.KindOf(err) != fault.Retry {
		t.Fatal(err)
	}
	s.ok(s.keeper.Rotate(t.Context()))
	after, err := os.ReadFile(filepath.Join(s.dir, pendingFile))
	if err != nil || string(after) != string(before) {
		t.Errorf("%v\n%s\n%s", err, before, after)
	}
}

// TestSuccessorsRefused has a platform answer what mustn't be taken.
func TestSuccessorsRefused(t *testing.T) {
	for name, answer := range map[string]func(*nodeapi.EnrollResponse){
		"other instance": func(a *nodeapi.EnrollResponse) { a.InstanceID = "other-7" },
		"no certificate": func(a *nodeapi.EnrollResponse) { a.CertPEM = "" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, newPlatform(t))
			before := readDir(t, s.dir)
			s.p.set(func() { s.p.answer = answer })
			if err := s.keeper.Rotate(t.Context()); fault.KindOf(err) != fault.Broken || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
			if readDir(t, s.dir) != before {
				t.Error("the disk changed")
			}
		})
	}
	t.Run("ended", func(t *testing.T) {
		s := newService(t, newPlatform(t))
		s.p.set(func() {
			s.p.template = func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(-2*year), time.Now().Add(-year) }
		})
		if err := s.keeper.Rotate(t.Context()); fault.KindOf(err) != fault.Broken {
			t.Fatal(err)
		}
		// The same key would get the same certificate again.
		s.p.set(func() { s.p.template = nil })
		s.ok(s.keeper.Rotate(t.Context()))
		s.ok(s.beat())
	})
}
