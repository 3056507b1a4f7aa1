package operatorcli

import (
	"net/http"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// TestClaimCommands takes in one machine and refuses another.
func TestClaimCommands(t *testing.T) {
	p := platformtest.Start(t)
	o := operator{t, p}
	if got := o.ok("claim", "list"); !strings.HasPrefix(got, "CODE") || strings.Count(got, "\n") != 1 {
		t.Error(got)
	}
	ask := func(key string) nodeapi.ClaimResponse {
		var out nodeapi.ClaimResponse
		p.Do(nil, http.MethodPost, nodeapi.PathClaim, nodeapi.ClaimRequest{
			MAC: "52:54:00:12:34:56", Hostname: "shelf-3", Architecture: "amd64", ClaimKey: strings.Repeat(key, 64),
		}).Into(&out)
		return out
	}
	one, two := ask("a").ClaimCode, ask("b").ClaimCode
	got := o.ok("claim", "list")
	for _, want := range []string{nodeapi.ShowClaimCode(one), nodeapi.ShowClaimCode(two), "shelf-3", "pending", "52:54:00:12:34:56", "127.0.0.1", "two machines say this MAC"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	o.ok("node", "create", "web-1")
	if got := o.ok("claim", "accept", strings.ToLower(one), "--node", "web-1"); !strings.Contains(got, "accepted") || !strings.Contains(got, "web-1") {
		t.Error(got)
	}
	var claim operatorapi.Claim
	if o.into(&claim, "claim", "reject", nodeapi.ShowClaimCode(two)); claim.State != operatorapi.ClaimRejected {
		t.Errorf("%+v", claim)
	}
	if o.into(&claim, "claim", "accept", two, "--create", "web-2"); claim.State != operatorapi.ClaimAccepted || claim.NodeName != "web-2" {
		t.Errorf("%+v", claim)
	}
	var list operatorapi.ClaimList
	if o.into(&list, "claim", "list"); list.Count != 2 || list.Claims[0].NodeName != "web-1" {
		t.Errorf("%+v", list)
	}
	if token := ask("a").BootstrapToken; token == "" || strings.Contains(o.ok("claim", "list", "--output", "json"), token) {
		t.Error("the token is none, or shown")
	}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"claim", "accept", one}, "give --node NODE, or --create NAME"},
		{[]string{"claim", "accept", "oil", "--node", "web-1"}, "see powernode claim list"},
		{[]string{"claim", "accept", one, "--node", "web-2"}, "reject it first"},
		{[]string{"claim", "reject", "ABCD-EFGH"}, "no machine asks with the code ABCD-EFGH; see powernode claim list"},
		{[]string{"claim", "accept", one, "--node", "a", "--create", "b"}, "node create"},
	} {
		if code, out, errs := o.run(tc.args...); code != 1 || out != "" || !strings.Contains(errs, tc.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: exit code %d, output %q, error %q; want %q", tc.args, code, out, errs, tc.want)
		}
	}
}
