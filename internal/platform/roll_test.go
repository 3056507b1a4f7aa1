package platform_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/secret"
	"github.com/powernode/powernode-agent/internal/signedtime"
)

// agent is what a node does for its certificate, with the code of the real one. Its own clock is wrong by
// years: only the time counts that the platform signs.
type agent struct {
	t      *testing.T
	p      *platformtest.Platform
	name   string
	keeper *enroll.Keeper
	client *nodeclient.Client
}

func newAgent(t *testing.T, p *platformtest.Platform, name string) *agent {
	t.Helper()
	return newAgentBy(t, p, name, "")
}

// newAgentBy is newAgent with other CAs than those that come with its token, unless caPEM is "".
func newAgentBy(t *testing.T, p *platformtest.Platform, name, caPEM string) *agent {
	t.Helper()
	if _, err := p.Operator.CreateNode(t.Context(), operatorapi.NodeCreate{Name: name, Architecture: "amd64"}); err != nil {
		t.Fatal(err)
	}
	token, err := p.Operator.CreateToken(t.Context(), name, operatorapi.TokenCreate{})
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{t: t, p: p, name: name}
	o := enroll.Options{Dir: filepath.Join(t.TempDir(), name), Discover: func(context.Context) (enroll.Bootstrap, error) {
		return enroll.Bootstrap{PlatformURL: token.PlatformURL, CAPEM: []byte(cmp.Or(caPEM, token.CAPEM)), Token: secret.New(token.Token), InstanceID: token.NodeID}, nil
	}, Clock: a.clock(), Architecture: "amd64"}
	if _, _, err := enroll.Ensure(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	a.restart(p, o.Dir)
	return a
}

func (a *agent) clock() *signedtime.Clock {
	begun := time.Now()
	return signedtime.Open("", signedtime.Options{
		Wall:    func() time.Time { return time.Now().AddDate(-15, 0, 0) },
		Elapsed: func() time.Duration { return a.p.Clock.Now().Sub(begun) },
	})
}

// restart begins a new process, which knows no time.
func (a *agent) restart(p *platformtest.Platform, dir string) {
	a.t.Helper()
	a.p = p
	a.keeper = enroll.NewKeeper(enroll.Options{Dir: dir, Clock: a.clock()})
	var err error
	if a.client, err = nodeclient.New(nodeclient.Config{Credentials: a.keeper, Heard: a.keeper.Heard, HTTP: nodehttp.Options{Now: a.keeper.Now}}); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(a.client.Close)
}

// beat sends a heartbeat and does what the answer asks for.
func (a *agent) beat(ctx context.Context) error {
	if err := a.keeper.Prepare(ctx); err != nil {
		return err
	}
	status, err := a.keeper.Status()
	if err != nil {
		return err
	}
	hb := heartbeat()
	hb.CABundleSHA256 = status.CABundleSHA256
	answer, err := a.client.Heartbeat(ctx, hb)
	if err != nil {
		return err
	}
	if answer.CABundleSHA256 != status.CABundleSHA256 {
		if err := a.keeper.AdoptCA(ctx); err != nil {
			return err
		}
	}
	if answer.Refresh {
		return a.keeper.Rotate(ctx)
	}
	return nil
}

// settle sends as many heartbeats as a change takes at most: one to learn of it, one that says so.
func (a *agent) settle() {
	a.t.Helper()
	for range 3 {
		if err := a.beat(a.t.Context()); err != nil {
			a.t.Fatalf("%s: %v", a.name, err)
		}
	}
}

// authorities says in which states the authorities are and how many certificates each signed.
func authorities(t *testing.T, p *platformtest.Platform) (list operatorapi.CAList, text string) {
	t.Helper()
	list, err := p.Operator.CA(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list.Authorities {
		text += string(a.State) + strings.Repeat("+", a.Certificates) + " "
	}
	return list, strings.TrimSpace(text)
}

func wantAuthorities(t *testing.T, p *platformtest.Platform, want string) {
	t.Helper()
	if _, got := authorities(t, p); got != want {
		t.Errorf("the authorities are %q, want %q", got, want)
	}
}

// caFile reads the certificates that registry clients are given.
func caFile(t *testing.T, p *platformtest.Platform) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.Dir, "ca", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestCARoll rolls the authority while a node works without a pause; another one is off the whole time.
func TestCARoll(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	on, busy, off := newAgent(t, p, "on"), newAgent(t, p, "busy"), newAgent(t, p, "off")
	off.settle()
	origin := certificates(t, p.Config.CAPEM)[0]
	wantAuthorities(t, p, "active+++")

	working, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var beats atomic.Int64
	wg.Go(func() {
		for working.Err() == nil {
			if err := busy.beat(working); err != nil && working.Err() == nil {
				t.Errorf("after %d heartbeats: %v", beats.Load(), err)
				return
			}
			beats.Add(1)
		}
	})
	// done waits until the busy node has seen what changed.
	done := func() {
		t.Helper()
		for until := beats.Load() + 3; beats.Load() < until && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
	}

	if _, err := p.Operator.RetireCA(ctx, operatorapi.CARetire{}); err == nil || !strings.Contains(err.Error(), "no authority is on its way out") {
		t.Errorf("%v", err)
	}
	if _, err := p.Operator.PrepareCA(ctx); err != nil {
		t.Fatal(err)
	}
	on.settle()
	done()
	wantAuthorities(t, p, "active+++ prepared")
	if list, _ := authorities(t, p); len(list.Behind) != 1 || list.Behind[0].NodeName != "off" || len(list.Behind[0].Reasons) != 1 {
		t.Errorf("%+v", list.Behind)
	}
	if _, err := p.Operator.ActivateCA(ctx); err != nil {
		t.Fatal(err)
	}
	on.settle()
	done()
	wantAuthorities(t, p, "trusted+ active++")
	// Who enrolls now trusts both, and is of the new one.
	late := newAgent(t, p, "late")
	late.settle()
	if _, signer := askTime(t, p); len(signer) != 2 || signer[0].Equal(origin) || signer[1].CheckSignatureFrom(origin) != nil {
		t.Errorf("the time is signed by %d certificates", len(signer))
	}
	_, err := p.Operator.RetireCA(ctx, operatorapi.CARetire{})
	if err == nil || !strings.Contains(err.Error(), "is still needed by 1 nodes: off (its certificate ") || !strings.Contains(err.Error(), "doesn't say that it trusts") ||
		!strings.Contains(fault.HintOf(err), "--force") {
		t.Errorf("%v (hint %q)", err, fault.HintOf(err))
	}
	wantAuthorities(t, p, "trusted+ active+++")
	if _, err := p.Operator.RetireCA(ctx, operatorapi.CARetire{Force: true}); err != nil {
		t.Fatal(err)
	}
	on.settle()
	late.settle()
	done()
	wantAuthorities(t, p, "retired active+++")
	stop()
	wg.Wait()

	// The operator's own client has the authority of the beginning only, and the file on the disk the new one.
	if bundle := certificates(t, caFile(t, p)); len(bundle) != 1 || bundle[0].Equal(origin) {
		t.Error("ca.pem isn't the new authority alone")
	}
	p = p.Restart()
	if p.Config.CAPEM != caFile(t, p) {
		t.Error("operator.json doesn't hold the new authority")
	}
	on.p, off.p = p, p
	on.settle()

	// The one that was off knows the platform still, learns that its certificate is worth nothing any more,
	// and gets another one by its key.
	err = off.beat(ctx)
	if e, ok := errors.AsType[*nodehttp.StatusError](err); !ok || e.Code != nodeapi.CodeCertificateExpired {
		t.Errorf("%v", err)
	}
	if err := off.keeper.Renew(ctx); err != nil {
		t.Fatal(err)
	}
	off.settle()
	wantAuthorities(t, p, "retired active++++")
	if list, _ := authorities(t, p); len(list.Behind) != 0 {
		t.Errorf("%+v", list.Behind)
	}
	events, err := p.Operator.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, e := range events.Events {
		if strings.HasPrefix(e.Kind, "ca.") {
			kinds = append(kinds, e.Kind)
		}
	}
	if got := strings.Join(kinds, " "); got != "ca.retired ca.activated ca.prepared" {
		t.Error(got)
	}
}

// TestCARollInPeace rolls without force, and without anyone off; then a node comes back that was off for half a
// year.
func TestCARollInPeace(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	on, off := newAgent(t, p, "on"), newAgent(t, p, "off")
	on.settle()
	off.settle()
	for _, change := range []func(context.Context) (operatorapi.CAList, error){p.Operator.PrepareCA, p.Operator.ActivateCA} {
		if _, err := change(ctx); err != nil {
			t.Fatal(err)
		}
		on.settle()
	}
	// Months later the certificate of the one that is off has expired by itself, and isn't in the way.
	for range 3 {
		p.Clock.Advance(50 * 24 * time.Hour)
		if err := on.keeper.Rotate(ctx); err != nil {
			t.Fatal(err)
		}
		on.settle()
	}
	list, err := p.Operator.RetireCA(ctx, operatorapi.CARetire{})
	if err != nil {
		t.Fatal(err)
	}
	if a := list.Authorities; len(a) != 2 || a[0].State != operatorapi.AuthorityRetired || a[1].CrossSignedBy != a[0].ID || !a[1].Presents || a[0].RetiredAt.IsZero() {
		t.Errorf("%+v", a)
	}
	on.settle()
	// It reaches the platform, and an operator is to decide: the certificate ended more than 30 days ago.
	if err := off.keeper.Renew(ctx); err == nil {
		t.Error("renewed without an approval")
	} else if _, waits := errors.AsType[*enroll.Waiting](err); !waits {
		t.Errorf("%v", err)
	}
}

// TestCARetiredBeforeACrash finds an authority retired whose certificates weren't ended yet.
func TestCARetiredBeforeACrash(t *testing.T) {
	p := platformtest.Start(t)
	node := p.Enroll("n", "amd64")
	p.Stop()
	dir, err := durable.OpenDir(filepath.Join(p.Dir, "ca"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	authority, err := ca.Open(dir, p.Clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	old := authority.Authorities()[0].ID
	for _, change := range []func() (string, error){authority.Prepare, authority.Activate, func() (string, error) { return "", authority.Retire(old) }} {
		if _, err := change(); err != nil {
			t.Fatal(err)
		}
	}
	p = p.Restart()
	wantAuthorities(t, p, "retired active")
	if a := p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, heartbeat()); a.Status != http.StatusUnauthorized || a.Envelope.Code != nodeapi.CodeCertificateExpired {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}

// TestCAAndOthers checks that whoever uses the platform by its CA alone, as registry clients do, gets on at each step
// with the file of that step and of the beginning, by HTTP/2 as before.
func TestCAAndOthers(t *testing.T) {
	p := platformtest.Start(t)
	first := p.Config
	check := func() {
		t.Helper()
		for _, pem := range []string{first.CAPEM, caFile(t, p)} {
			config := first
			config.CAPEM = pem
			tlsConfig, err := config.TLS()
			if err != nil {
				t.Fatal(err)
			}
			tlsConfig.NextProtos = []string{"h2"}
			conn, err := tls.Dial("tcp", first.RegistryHost(), tlsConfig)
			if err != nil {
				t.Fatal(err)
			}
			if got := conn.ConnectionState().NegotiatedProtocol; got != "h2" {
				t.Errorf("the protocol is %q", got)
			}
			conn.Close()
		}
		bearer := []string{"Authorization", "Bearer " + p.Config.Token.Reveal()}
		if a := p.Do(nil, http.MethodGet, "/v2/", nil, bearer...); a.Status != http.StatusOK {
			t.Errorf("%d", a.Status)
		}
	}
	check()
	for _, change := range []func(context.Context) (operatorapi.CAList, error){
		p.Operator.PrepareCA, p.Operator.ActivateCA,
		func(ctx context.Context) (operatorapi.CAList, error) {
			return p.Operator.RetireCA(ctx, operatorapi.CARetire{})
		},
	} {
		if _, err := change(t.Context()); err != nil {
			t.Fatal(err)
		}
		check()
	}
}
