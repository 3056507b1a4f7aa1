package api

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// TestRefreshesAreSpread: of a fleet that is to have new certificates only so many are asked at once, and all in the end.
func TestRefreshesAreSpread(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	a := New(Options{Now: func() time.Time { return now }})
	// Whoever shows no certificate of the present authority.
	r := httptest.NewRequest(http.MethodPost, nodeapi.PathHeartbeat, nil)
	left, seconds := 1000, 0
	for ; left > 0; seconds++ {
		asked := 0
		for range left {
			if a.wantsRefresh(r) {
				asked++
			}
		}
		if asked == 0 || asked > refreshesAtOnce {
			t.Fatalf("%d asked in second %d", asked, seconds)
		}
		left -= asked
		now = now.Add(refreshSpan)
	}
	if seconds != 1000/refreshesAtOnce {
		t.Errorf("%d s for 1000 nodes", seconds)
	}
}
