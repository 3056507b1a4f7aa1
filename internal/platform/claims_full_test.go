package platform_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// TestClaimsFull: the operator learns that machines find no room, at most once an hour, and of one network apart from all.
func TestClaimsFull(t *testing.T) {
	p := platformtest.Start(t)
	in := machine("")
	refused := func() {
		t.Helper()
		if a := p.Do(nil, http.MethodPost, nodeapi.PathClaim, in); a.Status != http.StatusTooManyRequests {
			t.Errorf("%d %s", a.Status, a.Body)
		}
	}
	fill := func(n int, network string) {
		t.Helper()
		// Heard of in the future, so that none is ever silent.
		execute(t, p, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
			INSERT INTO claims (id, code, mac, key_hash, dmi_uuid, hostname, agent_version, architecture, platform_hint, heard_from, network, site,
			created_at, polled_at, expires_at) SELECT ?2 || i, ?2 || i, 'mac' || i, ?4, '', '', '', '', '', '', ?2, ?2, 1, ?3, ?3 FROM n`,
			n, network, time.Now().Add(1000*time.Hour).UnixMilli(), []byte(network))
	}
	const one = "127.0.0.1/32"
	fill(256, one)
	for range 3 {
		refused()
	}
	if got := events(t, p, "claim.full"); len(got) != 1 || !strings.Contains(got[0], "of its network") || !strings.Contains(got[0], "at 127.0.0.1") {
		t.Errorf("%q", got)
	}
	execute(t, p, "UPDATE claims SET network = 'another', site = 'another'")
	fill(2048-256, "elsewhere")
	for range 3 {
		refused()
	}
	if got := events(t, p, "claim.full"); len(got) != 2 || !strings.Contains(got[0]+got[1], "no further machine can") {
		t.Errorf("%q", got)
	}
	p.Clock.Advance(time.Hour)
	refused()
	refused()
	if got := events(t, p, "claim.full"); len(got) != 3 {
		t.Errorf("after an hour: %q", got)
	}
	execute(t, p, "DELETE FROM claims")
	if got := poll(p, in); got.Status != nodeapi.ClaimPending {
		t.Errorf("%+v", got)
	}
}
