package platform_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/secret"
)

// TestWrongTokens: who shows one wrong token after the other is told to wait, at the API and at the registry, by the address that a
// trusted proxy passes; who was known before isn't.
func TestWrongTokens(t *testing.T) {
	p := platformtest.StartWith(t, platform.Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	ci := operatorToken(t, p, "ci", operatorapi.RoleRead)
	late := operatorToken(t, p, "late", operatorapi.RoleRead)
	ask := func(path, from, authorization string) platformtest.Answer {
		t.Helper()
		return p.Do(nil, http.MethodGet, path, nil, "X-Forwarded-For", from, "Authorization", authorization)
	}
	expect := func(what string, a platformtest.Answer, status int) {
		t.Helper()
		if a.Status != status || (status == http.StatusTooManyRequests) != (a.Header.Get("Retry-After") != "") {
			t.Errorf("%s: %d, Retry-After %q: %s", what, a.Status, a.Header.Get("Retry-After"), a.Body)
		}
	}
	const bad, good = "192.0.2.1", "192.0.2.2"
	expect("before", ask(operatorapi.PathInfo, bad, ci[1]), http.StatusOK)
	// Tries without a token cost nothing, and are none.
	for range 100 {
		expect("none", p.Do(nil, http.MethodGet, operatorapi.PathInfo, nil, "X-Forwarded-For", bad), http.StatusUnauthorized)
	}
	defer p.Clock.Stop()()
	tries := 0
	for a := (platformtest.Answer{}); a.Status != http.StatusTooManyRequests && tries < 200; tries++ {
		path, wrong := operatorapi.PathInfo, fmt.Sprintf("Bearer wrong-%d", tries)
		if tries%2 == 1 {
			path = "/v2/"
		}
		if a = ask(path, bad, wrong); a.Status != http.StatusUnauthorized {
			expect("wrong", a, http.StatusTooManyRequests)
		}
	}
	if tries < 50 || tries > 70 {
		t.Errorf("after %d tries", tries)
	}
	expect("the API", ask(operatorapi.PathInfo, bad, "Bearer x"), http.StatusTooManyRequests)
	if a := ask("/v2/_catalog", bad, "Bearer x"); !strings.Contains(string(a.Body), "TOOMANYREQUESTS") {
		t.Errorf("the registry: %d %s", a.Status, a.Body)
	}
	expect("another address", ask(operatorapi.PathInfo, good, "Bearer x"), http.StatusUnauthorized)
	expect("one that was good here", ask(operatorapi.PathInfo, bad, ci[1]), http.StatusOK)
	expect("one that was good, at the registry", ask("/v2/", bad, ci[1]), http.StatusOK)
	expect("one that nobody knows yet", ask(operatorapi.PathInfo, bad, late[1]), http.StatusTooManyRequests)
	events, err := p.Operator.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, e := range events.Events {
		if strings.Contains(e.Text, "wrong operator's tokens from "+bad) {
			told++
		}
	}
	if told == 0 || told > 2 {
		t.Errorf("%d events", told)
	}
	// One that was revoked isn't good any more.
	if _, err := p.Operator.RevokeOperator(t.Context(), "ci"); err != nil {
		t.Fatal(err)
	}
	expect("revoked", ask(operatorapi.PathInfo, bad, ci[1]), http.StatusUnauthorized)
	expect("revoked, again", ask(operatorapi.PathInfo, bad, ci[1]), http.StatusTooManyRequests)
	p.Clock.Advance(2 * time.Minute)
	expect("later", ask(operatorapi.PathInfo, bad, late[1]), http.StatusOK)

	// What the operator's own program says of it.
	for range 70 {
		ask(operatorapi.PathInfo, "127.0.0.1", "Bearer x")
	}
	config := p.Config
	config.Token = secret.New("wrong")
	client, err := operatorclient.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Info(t.Context()); fault.KindOf(err) != fault.Retry || !strings.Contains(fault.HintOf(err), "ask again in") {
		t.Errorf("%v; %s", err, fault.HintOf(err))
	}
}
