package platform_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// machine is one that has no token.
func machine(key string) nodeapi.ClaimRequest {
	in := nodeapi.ClaimRequest{MAC: "52:54:00:12:34:56", DMIUUID: "4c4c4544-0042-3510-8052-b4c04f4e3232", Hostname: "shelf-3", AgentVersion: "v1", Architecture: "amd64"}
	if key != "" {
		in.ClaimKey = strings.Repeat(key, 64)
	}
	return in
}

func poll(p *platformtest.Platform, in nodeapi.ClaimRequest) nodeapi.ClaimResponse {
	var out nodeapi.ClaimResponse
	p.Do(nil, http.MethodPost, nodeapi.PathClaim, in).Into(&out)
	return out
}

func claims(t *testing.T, p *platformtest.Platform) []operatorapi.Claim {
	t.Helper()
	list, err := p.Operator.Claims(t.Context())
	if err != nil || list.Count != len(list.Claims) {
		t.Fatalf("%+v, %v", list, err)
	}
	return list.Claims
}

func events(t *testing.T, p *platformtest.Platform, kind string) (texts []string) {
	t.Helper()
	list, err := p.Operator.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list.Events {
		if e.Kind == kind {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

// TestClaim goes from a machine without a token to a node.
func TestClaim(t *testing.T) {
	p := platformtest.Start(t)
	first := poll(p, machine("a"))
	if first.Status != nodeapi.ClaimPending || first.PollAfterSeconds != 10 || !regexp.MustCompile("^["+nodeapi.ClaimAlphabet+"]{8}$").MatchString(first.ClaimCode) {
		t.Fatalf("%+v", first)
	}
	if again := poll(p, machine("a")); again != first {
		t.Errorf("asked again: %+v, before %+v", again, first)
	}
	list := claims(t, p)
	if len(list) != 1 || list[0].Code != nodeapi.ShowClaimCode(first.ClaimCode) || list[0].State != operatorapi.ClaimPending || !list[0].Protected ||
		list[0].Hostname != "shelf-3" || list[0].Address != "127.0.0.1" || len(list[0].Remarks) != 0 {
		t.Errorf("%+v", list)
	}

	accepted, err := p.Operator.AcceptClaim(t.Context(), strings.ToLower(first.ClaimCode), operatorapi.ClaimAccept{Create: "web-1"})
	if err != nil || accepted.State != operatorapi.ClaimAccepted || accepted.NodeName != "web-1" {
		t.Fatalf("%+v, %v", accepted, err)
	}
	if again, err := p.Operator.AcceptClaim(t.Context(), first.ClaimCode, operatorapi.ClaimAccept{Create: "web-1"}); err != nil || again.NodeID != accepted.NodeID {
		t.Errorf("accepted again: %+v, %v", again, err)
	}
	lost, got := poll(p, machine("a")), poll(p, machine("a"))
	if got.Status != nodeapi.ClaimClaimed || got.InstanceUUID != accepted.NodeID || got.PlatformURL != p.URL || got.ClaimCode != "" || got.BootstrapToken == lost.BootstrapToken {
		t.Fatalf("%+v", got)
	}
	key := p.Key()
	enroll := func(token string) platformtest.Answer {
		return p.Do(nil, http.MethodPost, nodeapi.PathEnroll, nodeapi.EnrollRequest{BootstrapToken: token, CSRPEM: p.CSR(key), Architecture: "amd64"})
	}
	if a := enroll(lost.BootstrapToken); a.Status != http.StatusUnprocessableEntity {
		t.Errorf("the token of the reply that was lost: %d %s", a.Status, a.Body)
	}
	var out nodeapi.EnrollResponse
	enroll(got.BootstrapToken).Into(&out)
	if out.InstanceID != accepted.NodeID {
		t.Errorf("%+v", out)
	}
	if done := poll(p, machine("a")); done.Status != nodeapi.ClaimExpired || done.BootstrapToken != "" || done.PollAfterSeconds == 0 {
		t.Errorf("after the token was used: %+v", done)
	}
	// The same key gives the same certificate: the claim's end doesn't burn it.
	var same nodeapi.EnrollResponse
	if enroll(got.BootstrapToken).Into(&same); same != out {
		t.Errorf("%+v, before %+v", same, out)
	}
	if list := claims(t, p); len(list) != 1 || list[0].State != operatorapi.ClaimDone {
		t.Errorf("%+v", list)
	}
	if begun, accepted := events(t, p, db.EventClaimBegun), events(t, p, db.EventClaimAccepted); len(begun) != 1 || len(accepted) != 1 || !strings.Contains(begun[0], list[0].Code) {
		t.Errorf("%q, %q", begun, accepted)
	}
}

// TestClaimMayWait checks the times of a claim.
func TestClaimMayWait(t *testing.T) {
	p := platformtest.Start(t)
	first := poll(p, machine("a"))
	for range 3 {
		p.Clock.Advance(23 * time.Hour)
		if again := poll(p, machine("a")); again.ClaimCode != first.ClaimCode || again.PollAfterSeconds != 30 {
			t.Fatalf("%+v, before %+v", again, first)
		}
	}
	p.Clock.Advance(24*time.Hour + time.Second)
	if list := claims(t, p); len(list) != 0 {
		t.Errorf("%+v", list)
	}
	if _, err := p.Operator.AcceptClaim(t.Context(), first.ClaimCode, operatorapi.ClaimAccept{Create: "x"}); err == nil || !strings.Contains(err.Error(), "no machine asks") {
		t.Errorf("a code that is forgotten: %v", err)
	}
	second := poll(p, machine("a"))
	if second.Status != nodeapi.ClaimPending || second.ClaimCode == first.ClaimCode {
		t.Errorf("%+v, before %+v", second, first)
	}

	// A token of an hour that is over is followed by another.
	if _, err := p.Operator.AcceptClaim(t.Context(), second.ClaimCode, operatorapi.ClaimAccept{Create: "web-1"}); err != nil {
		t.Fatal(err)
	}
	old := poll(p, machine("a"))
	p.Clock.Advance(2 * time.Hour)
	if a := p.Do(nil, http.MethodPost, nodeapi.PathEnroll, nodeapi.EnrollRequest{BootstrapToken: old.BootstrapToken, CSRPEM: p.CSR(p.Key())}); a.Status != http.StatusUnprocessableEntity {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if fresh := poll(p, machine("a")); fresh.Status != nodeapi.ClaimClaimed || fresh.BootstrapToken == old.BootstrapToken {
		t.Errorf("%+v", fresh)
	}
}

// TestClaimTwoMachines checks that a MAC alone gets nobody another machine's token.
func TestClaimTwoMachines(t *testing.T) {
	p := platformtest.Start(t)
	own := poll(p, machine("a"))
	thief, keyless := poll(p, machine("b")), poll(p, machine(""))
	if own.ClaimCode == thief.ClaimCode || own.ClaimCode == keyless.ClaimCode || thief.ClaimCode == keyless.ClaimCode {
		t.Fatalf("%+v %+v %+v", own, thief, keyless)
	}
	if _, err := p.Operator.AcceptClaim(t.Context(), own.ClaimCode, operatorapi.ClaimAccept{Create: "web-1"}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"b", "", "c"} {
		if got := poll(p, machine(key)); got.Status != nodeapi.ClaimPending || got.BootstrapToken != "" {
			t.Errorf("key %q: %+v", key, got)
		}
	}
	if got := poll(p, machine("a")); got.Status != nodeapi.ClaimClaimed {
		t.Errorf("%+v", got)
	}
	for _, c := range claims(t, p) {
		if text := strings.Join(c.Remarks, "\n"); !strings.Contains(text, "two machines say this MAC") || c.Protected == strings.Contains(text, "no secret of its own") {
			t.Errorf("%+v", c)
		}
	}
	if texts := events(t, p, db.EventClaimBegun); len(texts) != 4 || !strings.Contains(texts[0], "4 claims say that MAC") {
		t.Errorf("%q", texts)
	}
}

// TestClaimDecisions goes through what an operator can decide, and can't.
func TestClaimDecisions(t *testing.T) {
	p := platformtest.Start(t)
	running := p.Enroll("running", "amd64")
	p.Do(running, http.MethodPost, nodeapi.PathHeartbeat, heartbeat()).Into(&nodeapi.HeartbeatResponse{})
	for _, node := range []operatorapi.NodeCreate{{Name: "arm", Architecture: "arm64"}, {Name: "free"}, {Name: "other"}, {Name: "gone"}} {
		if _, err := p.Operator.CreateNode(t.Context(), node); err != nil {
			t.Fatal(err)
		}
	}
	execute(t, p, "UPDATE nodes SET state = 'terminated' WHERE name = 'gone'")
	code := poll(p, machine("a")).ClaimCode
	for _, tc := range []struct {
		code string
		in   operatorapi.ClaimAccept
		want string
	}{
		{"ABCDEFGH", operatorapi.ClaimAccept{Node: "free"}, "no machine asks with the code ABCD-EFGH"},
		{"nonsense", operatorapi.ClaimAccept{Node: "free"}, "want the 8 characters"},
		{"../../info", operatorapi.ClaimAccept{Node: "free"}, "want the 8 characters"},
		{code, operatorapi.ClaimAccept{}, "want either node"},
		{code, operatorapi.ClaimAccept{Node: "free", Create: "x"}, "want either node"},
		{code, operatorapi.ClaimAccept{Node: "nobody"}, `there is no node "nobody"`},
		{code, operatorapi.ClaimAccept{Create: "free"}, "there is a node called free already"},
		{code, operatorapi.ClaimAccept{Create: "Not_A_Name"}, "DNS label"},
		{code, operatorapi.ClaimAccept{Node: "arm"}, "arm64, and the machine says amd64"},
		{code, operatorapi.ClaimAccept{Node: "gone"}, "out of service"},
		{code, operatorapi.ClaimAccept{Node: "running"}, "is running on a machine of its own"},
	} {
		if _, err := p.Operator.AcceptClaim(t.Context(), tc.code, tc.in); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s %+v: %v, want %q", tc.code, tc.in, err, tc.want)
		}
	}
	if got := poll(p, machine("a")); got.Status != nodeapi.ClaimPending || got.ClaimCode != code {
		t.Fatalf("%+v", got)
	}

	must := func(c operatorapi.Claim, err error) operatorapi.Claim {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := must(p.Operator.RejectClaim(t.Context(), code)); c.State != operatorapi.ClaimRejected {
		t.Errorf("%+v", c)
	}
	if got := poll(p, machine("a")); got.Status != nodeapi.ClaimError || got.PollAfterSeconds != 300 || !strings.Contains(got.Message, "rejected") || got.ClaimCode != "" {
		t.Errorf("%+v", got)
	}
	must(p.Operator.AcceptClaim(t.Context(), code, operatorapi.ClaimAccept{Node: "free"}))
	token := poll(p, machine("a")).BootstrapToken
	if _, err := p.Operator.AcceptClaim(t.Context(), code, operatorapi.ClaimAccept{Node: "other"}); err == nil || !strings.Contains(err.Error(), "accepted for another node, free") {
		t.Error(err)
	}
	must(p.Operator.RejectClaim(t.Context(), code))
	if a := p.Do(nil, http.MethodPost, nodeapi.PathEnroll, nodeapi.EnrollRequest{BootstrapToken: token, CSRPEM: p.CSR(p.Key())}); a.Status != http.StatusUnprocessableEntity {
		t.Errorf("a token of a claim that was taken back: %d %s", a.Status, a.Body)
	}
	must(p.Operator.AcceptClaim(t.Context(), code, operatorapi.ClaimAccept{Node: "running", Replace: true}))
	execute(t, p, "UPDATE nodes SET state = 'terminated' WHERE name = 'running'")
	if got := poll(p, machine("a")); got.Status != nodeapi.ClaimError || got.BootstrapToken != "" {
		t.Errorf("for a node out of service: %+v", got)
	}
	execute(t, p, "UPDATE nodes SET state = 'active' WHERE name = 'running'")
	token = poll(p, machine("a")).BootstrapToken
	p.Do(nil, http.MethodPost, nodeapi.PathEnroll, nodeapi.EnrollRequest{BootstrapToken: token, CSRPEM: p.CSR(p.Key())}).Into(&nodeapi.EnrollResponse{})
	if _, err := p.Operator.RejectClaim(t.Context(), code); err == nil || !strings.Contains(err.Error(), "enrolled already") {
		t.Error(err)
	}
	if _, err := p.Operator.AcceptClaim(t.Context(), code, operatorapi.ClaimAccept{Node: "free"}); err == nil || !strings.Contains(err.Error(), "enrolled already") {
		t.Error(err)
	}
}

// TestClaimExistingAgent checks the shapes that the existing agent and platform have for claims.
func TestClaimExistingAgent(t *testing.T) {
	p := platformtest.Start(t)
	const request = `{"mac":" 52:54:00:AB:CD:EF ","dmi_uuid":"4c4c4544","hostname":"box","agent_version":"0.1.0-dev","architecture":"amd64"}`
	ask := func() map[string]any {
		var data map[string]any
		p.Do(nil, http.MethodPost, nodeapi.PathClaim, strings.NewReader(request)).Into(&data)
		return data
	}
	has := func(data map[string]any, names ...string) {
		t.Helper()
		for _, name := range names {
			if _, ok := data[name]; !ok {
				t.Errorf("no %s in %v", name, data)
			}
		}
		if len(data) != len(names) {
			t.Errorf("%v: want %v", data, names)
		}
	}
	pending := ask()
	has(pending, "status", "poll_after_seconds", "claim_code")
	if c := claims(t, p); len(c) != 1 || c[0].MAC != "52:54:00:ab:cd:ef" || c[0].Protected {
		t.Errorf("%+v", c)
	}
	if _, err := p.Operator.AcceptClaim(t.Context(), pending["claim_code"].(string), operatorapi.ClaimAccept{Create: "box"}); err != nil {
		t.Fatal(err)
	}
	claimed := ask()
	has(claimed, "status", "poll_after_seconds", "bootstrap_token", "instance_uuid", "platform_url")
	var out nodeapi.EnrollResponse
	p.Do(nil, http.MethodPost, nodeapi.PathEnroll, nodeapi.EnrollRequest{BootstrapToken: claimed["bootstrap_token"].(string), CSRPEM: p.CSR(p.Key()), AgentVersion: "0.1.0-dev"}).Into(&out)
	// Nothing but the MAC tells the machine that is enrolled from one that was wiped, or from a thief.
	if again := ask(); again["status"] != "pending" || again["claim_code"] == pending["claim_code"] {
		t.Errorf("%v", again)
	}

	for body, want := range map[string]int{
		`{}`:                        http.StatusBadRequest,
		`{"mac":"  "}`:              http.StatusBadRequest,
		`{"mac":"not one"}`:         http.StatusBadRequest,
		`{"mac":7}`:                 http.StatusBadRequest,
		`not JSON`:                  http.StatusBadRequest,
		strings.Repeat(" ", 17<<10): http.StatusRequestEntityTooLarge,
		`{"mac":"52:54:00:ab:cd:ef","claim_key":"short"}`: http.StatusUnprocessableEntity,
	} {
		if a := p.Do(nil, http.MethodPost, nodeapi.PathClaim, strings.NewReader(body)); a.Status != want || a.Envelope.Success {
			t.Errorf("%.60s: %d %s, want %d", body, a.Status, a.Body, want)
		}
	}
}

// TestClaimHostile checks that a stranger's words can't harm the operator's screen, nor strangers fill the platform.
func TestClaimHostile(t *testing.T) {
	p := platformtest.Start(t)
	in := machine("a")
	in.Hostname = "evil\x1b[2J\n\u202ehost\x00" + strings.Repeat("ä", 500)
	in.DMIUUID = strings.Repeat("x", 5000)
	in.AgentVersion, in.Architecture, in.PlatformHint = "v1\r\n", "amd64'; --", "\xff\xfe"
	poll(p, in)
	c := claims(t, p)[0]
	if !strings.HasPrefix(c.Hostname, "evil[2Jhostä") || len(c.Hostname) > 253 || len(c.DMIUUID) != 64 || c.AgentVersion != "v1" || c.Architecture != "" || c.PlatformHint != "" {
		t.Errorf("%+v", c)
	}

	limited := false
	defer p.Clock.Stop()()
	for i := range 400 {
		in := machine("a")
		in.MAC = fmt.Sprintf("02:00:00:00:%02x:%02x", i/256, i%256)
		a := p.Do(nil, http.MethodPost, nodeapi.PathClaim, in)
		if a.Status == http.StatusOK {
			continue
		}
		if limited = true; a.Status != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "" {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		// Past the limit of calls there is one of claims.
		p.Clock.Advance(time.Minute)
	}
	if n := len(claims(t, p)); !limited || n > 256 || n < 60 {
		t.Errorf("%d claims", n)
	}
	if n := len(events(t, p, db.EventClaimBegun)); n > 200 {
		t.Errorf("%d events", n)
	}
}

// TestClaimPage checks what a phone that read the QR code gets.
func TestClaimPage(t *testing.T) {
	p := platformtest.Start(t)
	a := p.Do(nil, http.MethodGet, "/claim/abcd-efgh", nil)
	if a.Status != http.StatusOK || !strings.Contains(string(a.Body), "powernode claim accept ABCD-EFGH --node NODE") || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("%d %v %s", a.Status, a.Header, a.Body)
	}
	for _, path := range []string{"/claim/%3Cscript%3E", "/claim/ABCDEFG0", "/claim/"} {
		if a := p.Do(nil, http.MethodGet, path, nil); a.Status != http.StatusNotFound || strings.Contains(string(a.Body), "script") || strings.Contains(string(a.Body), "EFG0") {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
}
