package boot

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/identity/places"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	server "github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/secret"
)

// shutOut is a node that boots with nothing to run, with a certificate that seems good, and whose platform ends the
// handshake because of it.
type shutOut struct {
	t       *testing.T
	p       *platformtest.Platform
	console bytes.Buffer
	*boot
	serial string
}

// newShutOut enrolls the node.
func newShutOut(t *testing.T, o server.Options, clock identity.Clock) *shutOut {
	t.Helper()
	s := &shutOut{t: t, p: platformtest.StartWith(t, o)}
	if _, err := s.p.Operator.CreateNode(t.Context(), operatorapi.NodeCreate{Name: "web-1", Architecture: "amd64"}); err != nil {
		t.Fatal(err)
	}
	s.boot = newHistory(t).boot(&s.console)
	s.mode, s.config.Namespace = Namespace, true
	s.config.Now, s.config.Trust = s.p.Clock.Now, filepath.Join(trustDir(t, "trust.yaml"), "trust.yaml")
	s.config.Places = places.Places{IdentityFile: filepath.Join(t.TempDir(), "identity.cfg")}
	s.openClock()
	s.discovered = identity.Identity{PlatformURL: s.p.URL, CAPEM: []byte(s.p.Config.CAPEM), Token: secret.New(s.token()), Clock: clock}
	if said, err := s.enroll(t.Context()); err != nil || s.credentials == nil {
		t.Fatalf("%s, %v", said, err)
	}
	s.serial = s.credentials.Serial()
	return s
}

func (s *shutOut) token() string {
	s.t.Helper()
	token, err := s.p.Operator.CreateToken(s.t.Context(), "web-1", operatorapi.TokenCreate{})
	if err != nil {
		s.t.Fatal(err)
	}
	return token.Token
}

// boots boots the node anew, up to what it does when the platform's list can't be had, and returns that error.
func (s *shutOut) boots() error {
	s.t.Helper()
	ctx := s.t.Context()
	s.clock, s.credentials, s.reconciler, s.discovered = nil, nil, nil, identity.Identity{}
	s.openClock()
	if said, err := s.enroll(ctx); err != nil || s.credentials.Serial() != s.serial {
		s.t.Fatalf("%s, %v", said, err)
	}
	reason := s.fetchAssigned(ctx)
	if !errors.Is(reason, nodehttp.ErrOwnCertificate) || !s.disowned(reason) {
		s.t.Fatalf("%v", reason)
	}
	return s.chooseAnew(ctx, reason)
}

// isBack checks that the node has another certificate, which the platform takes, and that it trusts so many CAs.
func (s *shutOut) isBack(err error, cas int) {
	s.t.Helper()
	if err == nil || !strings.Contains(err.Error(), "the platform has no modules for node") {
		s.t.Errorf("%v\n%s", err, &s.console)
	}
	state, err := enroll.Inspect(PKIDir(s.store.Path()), enroll.Wish{}, s.now())
	if err != nil || state.Situation != enroll.Valid || state.Credentials.Serial() == s.serial || len(state.Credentials.CAs) != cas {
		s.t.Errorf("%v, %+v\n%s", err, state, &s.console)
	}
}

// TestShutOut: the node goes by its own clock, which is behind, so that its certificate has ended at the platform only. The
// platform's CA may have rolled meanwhile; where it renews no certificate that has ended, a token helps.
func TestShutOut(t *testing.T) {
	for _, test := range []struct {
		policy string
		rolled bool
	}{{"30d", false}, {"30d", true}, {"never", false}} {
		renew, err := server.ParseRenewPolicy(test.policy)
		if err != nil {
			t.Fatal(err)
		}
		s := newShutOut(t, server.Options{RenewExpired: renew}, identity.ClockLocal)
		cas := 1
		if test.rolled {
			_, prepared := s.p.Operator.PrepareCA(t.Context())
			_, activated := s.p.Operator.ActivateCA(t.Context())
			if err := errors.Join(prepared, activated); err != nil {
				t.Fatal(err)
			}
			cas = 2
		}
		s.p.Clock.Advance(90*24*time.Hour + 10*time.Second)
		s.config.Now = func() time.Time { return s.p.Clock.Now().Add(-time.Minute) }
		if test.policy == "never" {
			if err := s.boots(); err == nil || !strings.Contains(err.Error(), "the platform renews no expired certificate") {
				t.Errorf("%v\n%s", err, &s.console)
			}
			text := "SERVER=" + s.p.URL + "\nCA_PEM='" + s.p.Config.CAPEM + "'\nKEY=" + s.token() + "\nCLOCK=local\n"
			if err := os.WriteFile(s.config.Places.IdentityFile, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s.isBack(s.boots(), cas)
	}
}
