package platform_test

import (
	"crypto"
	"crypto/sha256"
	"encoding/pem"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

const day = 24 * time.Hour

// works makes a request by the node's certificate and returns the code of the refusal, or "".
func works(p *platformtest.Platform, node *platformtest.Node) nodeapi.Code {
	return p.Do(node, http.MethodGet, nodeapi.PathModules, nil).Envelope.Code
}

// issued decodes the certificate of an answer to a renewal.
func issued(t *testing.T, a platformtest.Answer) nodeapi.EnrollResponse {
	t.Helper()
	var out nodeapi.RenewResponse
	a.Into(&out)
	if out.Status != nodeapi.RenewIssued || out.Certificate == nil {
		t.Fatalf("%s", a.Body)
	}
	return *out.Certificate
}

// eventsOf returns the kinds and texts of a node's events, one a line.
func eventsOf(t *testing.T, p *platformtest.Platform, name string) string {
	t.Helper()
	shown, err := p.Operator.Node(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, e := range shown.Events {
		text.WriteString(e.Kind + " " + e.Text + "\n")
	}
	return text.String()
}

func wants(t *testing.T, text string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestRefresh: a successor is had as often as its answer is lost, the one before is good until the
// successor is used, and its holder is told so afterwards.
func TestRefresh(t *testing.T) {
	p := platformtest.Start(t)
	old := p.Enroll("web-1", "amd64")
	key := p.Key()
	var first nodeapi.EnrollResponse
	p.Refresh(old, key).Into(&first)
	for range 10 {
		var again nodeapi.EnrollResponse
		p.Refresh(old, key).Into(&again)
		if diff := cmp.Diff(first, again); diff != "" {
			t.Fatal(diff)
		}
	}
	if first.InstanceID != old.ID || first.CAChainPEM == "" {
		t.Errorf("%+v", first)
	}
	if code := works(p, old); code != "" {
		t.Errorf("before the successor is used: %s", code)
	}
	next := p.With(old, first.CertPEM, key)
	if code := works(p, next); code != "" {
		t.Errorf("the successor: %s", code)
	}
	if code := works(p, old); code != nodeapi.CodeCertificateSuperseded {
		t.Errorf("after the successor was used: %q", code)
	}
	if a := p.Refresh(old, p.Key()); a.Envelope.Code != nodeapi.CodeCertificateSuperseded || a.Status != http.StatusUnauthorized {
		t.Errorf("refreshed by a superseded one: %d %s", a.Status, a.Body)
	}
	// Its own key again gives what it has; a key of an ended certificate nothing.
	var same nodeapi.EnrollResponse
	p.Refresh(next, key).Into(&same)
	if same.CertPEM != first.CertPEM {
		t.Error("its own key gives another certificate")
	}
	if a := p.Refresh(next, old.TLS.PrivateKey.(crypto.Signer)); a.Status != http.StatusConflict {
		t.Errorf("the key of a superseded certificate: %d %s", a.Status, a.Body)
	}
	for name, body := range map[string]any{"nothing": nodeapi.RefreshRequest{}, "no request": nodeapi.RefreshRequest{CSRPEM: "x"}, "no JSON": strings.NewReader("{")} {
		if a := p.Do(next, http.MethodPost, nodeapi.PathRefresh, body); a.Status < 400 || a.Status > 422 {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	// Strangers and bootstrap tokens get nothing.
	if a := p.Do(nil, http.MethodPost, nodeapi.PathRefresh, nodeapi.RefreshRequest{CSRPEM: p.CSR(key)}); a.Envelope.Code != nodeapi.CodeUnauthorized {
		t.Errorf("a stranger: %d %s", a.Status, a.Body)
	}
	// A new enrollment, whose key was had, ends all.
	p.EnrollAgain("web-1")
	if code := works(p, next); code != nodeapi.CodeCertificateRevoked {
		t.Errorf("after a new enrollment: %q", code)
	}
	wants(t, eventsOf(t, p, "web-1"), "certificate.refreshed refreshed from 127.0.0.1", "certificate.superseded", "access.refused")
}

// TestRefreshUnfinished: of successors that nobody used, the newest is good, and there are only so many.
func TestRefreshUnfinished(t *testing.T) {
	p := platformtest.Start(t)
	old := p.Enroll("web-1", "amd64")
	keys := []crypto.Signer{p.Key(), p.Key(), p.Key()}
	nodes := make([]*platformtest.Node, len(keys))
	for i, key := range keys {
		var out nodeapi.EnrollResponse
		p.Refresh(old, key).Into(&out)
		nodes[i] = p.With(old, out.CertPEM, key)
	}
	if a := p.Refresh(old, keys[0]); a.Status != http.StatusConflict {
		t.Errorf("a key whose certificate gave way: %d %s", a.Status, a.Body)
	}
	for i, want := range []nodeapi.Code{nodeapi.CodeCertificateRevoked, nodeapi.CodeCertificateRevoked, ""} {
		if got := works(p, nodes[i]); got != want {
			t.Errorf("successor %d: %q, want %q", i, got, want)
		}
	}
	last := nodes[2]
	var refused platformtest.Answer
	defer p.Clock.Stop()()
	for range 40 {
		if refused = p.Refresh(last, p.Key()); refused.Status != http.StatusOK {
			break
		}
	}
	if refused.Status != http.StatusTooManyRequests || refused.Header.Get("Retry-After") == "" {
		t.Errorf("a new key each time: %d %s", refused.Status, refused.Body)
	}
	p.Clock.Advance(61 * time.Minute)
	if a := p.Refresh(last, p.Key()); a.Status != http.StatusOK {
		t.Errorf("an hour later: %d %s", a.Status, a.Body)
	}
}

// TestRevoke: a revocation counts at the very next request, on a connection that is open too.
func TestRevoke(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	node := p.Enroll("web-1", "amd64")
	get := overOneConnection(t, p, node)
	if got := get(); got != http.StatusOK {
		t.Fatal(got)
	}
	key := p.Key()
	var out nodeapi.EnrollResponse
	p.Refresh(node, key).Into(&out)
	next := p.With(node, out.CertPEM, key)
	shown, err := p.Operator.Node(ctx, "web-1")
	if err != nil || len(shown.Certificates) != 2 || shown.Certificates[0].State != operatorapi.CertificateUnused || shown.Certificates[1].State != operatorapi.CertificateInForce {
		t.Fatalf("%+v, %v", shown.Certificates, err)
	}
	// The one, by its serial number; in lower case as other programs print it.
	done, err := p.Operator.RevokeNode(ctx, "web-1", operatorapi.RevokeRequest{Serial: strings.ToLower(shown.Certificates[0].Serial)})
	if err != nil || len(done.Serials) != 1 || done.Tokens != 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	if code := works(p, next); code != nodeapi.CodeCertificateRevoked {
		t.Errorf("the revoked one: %q", code)
	}
	if got := get(); got != http.StatusOK {
		t.Errorf("the other one: %d", got)
	}
	token, err := p.Operator.CreateToken(ctx, "web-1", operatorapi.TokenCreate{})
	if err != nil {
		t.Fatal(err)
	}
	if done, err = p.Operator.RevokeNode(ctx, "web-1", operatorapi.RevokeRequest{}); err != nil || len(done.Serials) != 1 || done.Tokens != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	if got := get(); got != http.StatusUnauthorized {
		t.Errorf("on an open connection: %d", got)
	}
	if a := p.Renew(node, p.Key()); a.Envelope.Code != nodeapi.CodeCertificateRevoked {
		t.Errorf("renewed: %d %s", a.Status, a.Body)
	}
	if a := p.Do(nil, http.MethodPost, nodeapi.PathEnroll, nodeapi.EnrollRequest{BootstrapToken: token.Token, CSRPEM: p.CSR(p.Key())}); a.Envelope.Code != nodeapi.CodeTokenRefused {
		t.Errorf("by a token from before: %d %s", a.Status, a.Body)
	}
	if done, err = p.Operator.RevokeNode(ctx, "web-1", operatorapi.RevokeRequest{}); err != nil || len(done.Serials) != 0 {
		t.Errorf("again: %+v, %v", done, err)
	}
	if _, err := p.Operator.RevokeNode(ctx, "web-1", operatorapi.RevokeRequest{Serial: "00"}); err == nil || !strings.Contains(err.Error(), "has no certificate") {
		t.Errorf("an unknown serial number: %v", err)
	}
	if code := works(p, p.EnrollAgain("web-1")); code != "" {
		t.Errorf("with a new token: %s", code)
	}
	wants(t, eventsOf(t, p, "web-1"), "certificate.revoked an operator revoked certificate "+shown.Certificates[0].Serial, "an operator revoked 1 certificates and 1 tokens")
}

// TestRenewPolicies lets nodes come back whose certificates expired, under each policy.
func TestRenewPolicies(t *testing.T) {
	for _, tc := range []struct {
		policy string
		late   time.Duration
		want   nodeapi.RenewStatus // "" for a refusal
	}{
		{"", -30 * day, nodeapi.RenewIssued},
		{"", time.Hour, nodeapi.RenewIssued},
		{"", 29 * day, nodeapi.RenewIssued},
		{"", 31 * day, nodeapi.RenewWaiting},
		{"always", 3000 * day, nodeapi.RenewIssued},
		{"2d", 1 * day, nodeapi.RenewIssued},
		{"2d", 3 * day, nodeapi.RenewWaiting},
		{"approval", time.Hour, nodeapi.RenewWaiting},
		{"never", time.Hour, ""},
		{"never", -time.Hour, nodeapi.RenewIssued},
	} {
		t.Run(tc.policy+" "+tc.late.String(), func(t *testing.T) {
			var o platform.Options
			if tc.policy != "" {
				var err error
				if o.RenewExpired, err = platform.ParseRenewPolicy(tc.policy); err != nil || o.RenewExpired.String() != tc.policy {
					t.Fatal(o.RenewExpired, err)
				}
			}
			p := platformtest.StartWith(t, o)
			node := p.Enroll("web-1", "amd64")
			p.Clock.Advance(90*day + tc.late)
			key := p.Key()
			a := p.Renew(node, key)
			if tc.want == "" {
				if a.Status != http.StatusForbidden || a.Envelope.Code != nodeapi.CodeRenewalRefused {
					t.Errorf("%d %s", a.Status, a.Body)
				}
				wants(t, eventsOf(t, p, "web-1"), "renewal.refused")
				return
			}
			var out nodeapi.RenewResponse
			a.Into(&out)
			if out.Status != tc.want {
				t.Fatalf("%s", a.Body)
			}
			if out.Status == nodeapi.RenewWaiting {
				if out.PollAfterSeconds <= 0 || !strings.Contains(out.Message, "powernode node approve web-1") || out.Certificate != nil {
					t.Errorf("%+v", out)
				}
				return
			}
			if again := issued(t, p.Renew(node, key)); again != *out.Certificate {
				t.Error("the answer isn't the same again")
			}
			if code := works(p, p.With(node, out.Certificate.CertPEM, key)); code != "" {
				t.Error(code)
			}
		})
	}
	for _, bad := range []string{"", "d", "0d", "-1d", "1.5d", "4000d", "99999999999d", "30", "30 d", "Always"} {
		if _, err := platform.ParseRenewPolicy(bad); err == nil {
			t.Errorf("%q is a policy", bad)
		}
	}
}

// TestRenewApproval: what waits is seen by the operator, an approval is for one key, and a denial for the
// certificate.
func TestRenewApproval(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	node, other := p.Enroll("web-1", "amd64"), p.Enroll("web-2", "amd64")
	p.Clock.Advance(200 * day)
	waits := func(a platformtest.Answer) {
		t.Helper()
		var out nodeapi.RenewResponse
		a.Into(&out)
		if out.Status != nodeapi.RenewWaiting {
			t.Fatalf("%s", a.Body)
		}
	}
	approve := func(in operatorapi.ApproveRequest) (operatorapi.ApproveResult, error) {
		return p.Operator.ApproveNode(ctx, "web-1", in)
	}
	if _, err := approve(operatorapi.ApproveRequest{}); err == nil || !strings.Contains(err.Error(), "nothing of node web-1 waits") {
		t.Errorf("%v", err)
	}
	mine, theirs := p.Key(), p.Key()
	waits(p.Renew(node, mine))
	waits(p.Renew(node, mine))
	waits(p.Renew(node, theirs))
	waits(p.Renew(other, p.Key()))
	list, err := p.Operator.Nodes(ctx)
	if err != nil || list.Nodes[0].WaitingRenewals != 2 || list.Nodes[1].WaitingRenewals != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	if _, err := approve(operatorapi.ApproveRequest{}); err == nil || !strings.Contains(err.Error(), "several renewals") {
		t.Errorf("two machines at once: %v", err)
	}
	shown, err := p.Operator.Node(ctx, "web-1")
	if err != nil || len(shown.Renewals) != 2 || shown.Certificates[0].State != operatorapi.CertificateExpired {
		t.Fatalf("%+v, %v", shown, err)
	}
	first := shown.Renewals[1]
	if first.Serial != shown.Certificates[0].Serial || first.Reason != "expired" || first.State != "waiting" || first.From != "127.0.0.1" ||
		first.DMIUUID != "dmi-1" || first.AgentVersion != "v1" || first.LastAskedAt.Before(first.AskedAt) {
		t.Errorf("%+v", first)
	}
	done, err := approve(operatorapi.ApproveRequest{Renewal: first.ID[:8]})
	if err != nil || len(done.Renewals) != 1 || done.Renewals[0].State != "approved" {
		t.Fatalf("%+v, %v", done, err)
	}
	waits(p.Renew(node, theirs))
	waits(p.Renew(node, p.Key()))
	out := issued(t, p.Renew(node, mine))
	if code := works(p, p.With(node, out.CertPEM, mine)); code != "" {
		t.Error(code)
	}
	if done, err = approve(operatorapi.ApproveRequest{Deny: true}); err != nil || len(done.Renewals) != 2 || done.Renewals[0].State != "denied" {
		t.Errorf("%+v, %v", done, err)
	}
	for _, key := range []crypto.Signer{theirs, p.Key()} {
		if a := p.Renew(node, key); a.Status != http.StatusForbidden || a.Envelope.Code != nodeapi.CodeRenewalRefused {
			t.Errorf("denied: %d %s", a.Status, a.Body)
		}
	}
	wants(t, eventsOf(t, p, "web-1"), "renewal.waiting a renewal waits for approval, asked from 127.0.0.1", "renewal.approved", "renewal.denied",
		"certificate.renewed", "renewal.refused")
}

// TestRenewSuperseded: a machine with an older state of the identity gets a certificate only by an
// operator's word, however young its certificate is; then the other one is the older one.
func TestRenewSuperseded(t *testing.T) {
	policy, err := platform.ParseRenewPolicy("always")
	if err != nil {
		t.Fatal(err)
	}
	p := platformtest.StartWith(t, platform.Options{RenewExpired: policy})
	old := p.Enroll("web-1", "amd64")
	key := p.Key()
	var out nodeapi.EnrollResponse
	p.Refresh(old, key).Into(&out)
	current := p.With(old, out.CertPEM, key)
	if code := works(p, current); code != "" {
		t.Fatal(code)
	}
	restored := p.Key()
	var answer nodeapi.RenewResponse
	p.Renew(old, restored).Into(&answer)
	if answer.Status != nodeapi.RenewWaiting {
		t.Fatalf("%+v", answer)
	}
	if code := works(p, current); code != "" {
		t.Errorf("while one waits: %s", code)
	}
	if _, err := p.Operator.ApproveNode(t.Context(), "web-1", operatorapi.ApproveRequest{}); err != nil {
		t.Fatal(err)
	}
	next := p.With(old, issued(t, p.Renew(old, restored)).CertPEM, restored)
	if code := works(p, current); code != "" {
		t.Errorf("before the approved one is used: %s", code)
	}
	if code := works(p, next); code != "" {
		t.Error(code)
	}
	if code := works(p, current); code != nodeapi.CodeCertificateSuperseded {
		t.Errorf("after the approved one was used: %q", code)
	}
}

// TestRenewRefused: who doesn't prove the key of a certificate that is on file learns nothing.
func TestRenewRefused(t *testing.T) {
	p, elsewhere := platformtest.Start(t), platformtest.Start(t)
	node, foreign := p.Enroll("web-1", "amd64"), elsewhere.Enroll("web-1", "amd64")
	good := p.RenewRequest(node, p.Key())
	stranger := p.Do(nil, http.MethodPost, nodeapi.PathRenew, p.RenewRequest(foreign, p.Key()))
	if stranger.Status != http.StatusUnauthorized || stranger.Envelope.Code != nodeapi.CodeUnauthorized {
		t.Fatalf("%d %s", stranger.Status, stranger.Body)
	}
	for name, change := range map[string]func(*nodeapi.RenewRequest){
		"the proof of another request": func(r *nodeapi.RenewRequest) { r.CSRPEM = p.CSR(p.Key()) },
		"the proof of another key":     func(r *nodeapi.RenewRequest) { r.Proof = p.RenewRequest(foreign, p.Key()).Proof },
		"no proof at all":              func(r *nodeapi.RenewRequest) { r.Proof = []byte{1} },
		"a long proof":                 func(r *nodeapi.RenewRequest) { r.Proof = make([]byte, 4096) },
		"another certificate": func(r *nodeapi.RenewRequest) {
			r.CertificatePEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: foreign.TLS.Certificate[0]}))
		},
		"no certificate":    func(r *nodeapi.RenewRequest) { r.CertificatePEM = "x" },
		"a request instead": func(r *nodeapi.RenewRequest) { r.CertificatePEM = r.CSRPEM },
	} {
		r := good
		change(&r)
		if a := p.Do(nil, http.MethodPost, nodeapi.PathRenew, r); string(a.Body) != string(stranger.Body) || a.Status != stranger.Status {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	for name, tc := range map[string]struct {
		change func(*nodeapi.RenewRequest)
		status int
	}{
		"no certificate": {func(r *nodeapi.RenewRequest) { r.CertificatePEM = "" }, 400},
		"no request":     {func(r *nodeapi.RenewRequest) { r.CSRPEM = "" }, 400},
		"no proof":       {func(r *nodeapi.RenewRequest) { r.Proof = nil }, 400},
		"a bad request":  {func(r *nodeapi.RenewRequest) { r.CSRPEM = "x" }, 422},
	} {
		r := good
		tc.change(&r)
		if a := p.Do(nil, http.MethodPost, nodeapi.PathRenew, r); a.Status != tc.status {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	execute(t, p, "UPDATE nodes SET state = 'terminated' WHERE id = ?", node.ID)
	for name, a := range map[string]platformtest.Answer{"renew": p.Renew(node, p.Key()), "refresh": p.Refresh(node, p.Key())} {
		if a.Envelope.Code != nodeapi.CodeNodeInactive || a.Status != http.StatusUnauthorized {
			t.Errorf("%s of an inactive node: %d %s", name, a.Status, a.Body)
		}
	}
	execute(t, p, "UPDATE nodes SET state = 'active' WHERE id = ?", node.ID)
	var limited bool
	defer p.Clock.Stop()()
	for range 2 * 120 {
		if a := p.Do(nil, http.MethodPost, nodeapi.PathRenew, strings.NewReader("{}")); a.Status == http.StatusTooManyRequests {
			limited = true
			break
		}
	}
	if !limited {
		t.Error("one address may ask without end")
	}
}

// TestSuccessionAtOnce lets refreshes, renewals, first uses and a revocation of one node race: at every
// moment at most one line of certificates is good, and after the revocation none.
func TestSuccessionAtOnce(t *testing.T) {
	p := platformtest.Start(t)
	old := p.Enroll("web-1", "amd64")
	var mu sync.Mutex
	answers := map[[32]byte]int{}
	nodes := []*platformtest.Node{old}
	var wg sync.WaitGroup
	for range 3 {
		key := p.Key()
		for i := range 4 {
			wg.Go(func() {
				var out nodeapi.EnrollResponse
				if i%2 == 0 {
					a := p.Refresh(old, key)
					if a.Status != http.StatusOK {
						return
					}
					a.Into(&out)
				} else {
					a := p.Renew(old, key)
					if a.Status != http.StatusOK {
						return
					}
					// Where a successor was used meanwhile, an operator is to decide.
					var renewed nodeapi.RenewResponse
					if a.Into(&renewed); renewed.Certificate == nil {
						return
					}
					out = *renewed.Certificate
				}
				next := p.With(old, out.CertPEM, key)
				mu.Lock()
				answers[sha256.Sum256([]byte(out.CertPEM))]++
				nodes = append(nodes, next)
				mu.Unlock()
				works(p, next)
			})
		}
	}
	wg.Wait()
	shown, err := p.Operator.Node(t.Context(), "web-1")
	if err != nil {
		t.Fatal(err)
	}
	states := map[operatorapi.CertificateState]int{}
	for _, c := range shown.Certificates {
		states[c.State]++
	}
	if states[operatorapi.CertificateInForce] != 1 || states[operatorapi.CertificateUnused] > 1 || len(answers) > 3 {
		t.Errorf("%v, %d certificates answered", states, len(answers))
	}
	var late sync.WaitGroup
	late.Go(func() {
		if _, err := p.Operator.RevokeNode(t.Context(), "web-1", operatorapi.RevokeRequest{}); err != nil {
			t.Error(err)
		}
	})
	for range 4 {
		late.Go(func() {
			for _, n := range nodes {
				p.Refresh(n, p.Key())
			}
		})
	}
	late.Wait()
	// A successor that was issued before the revocation ended with it, and none came after.
	if shown, err = p.Operator.Node(t.Context(), "web-1"); err != nil {
		t.Fatal(err)
	}
	for _, c := range shown.Certificates {
		if c.State != operatorapi.CertificateRevoked {
			t.Errorf("%s is %s", c.Serial, c.State)
		}
	}
}
