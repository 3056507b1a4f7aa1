package platform_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// TestProofOfAnotherTime: a renewal's proof is good for ten minutes, either way, and for the time that it says only. What was
// held back is nothing later, whatever the certificate; the same key signed again is the same request.
func TestProofOfAnotherTime(t *testing.T) {
	p := platformtest.Start(t)
	node := p.Enroll("web-1", "amd64")
	p.Clock.Advance(91 * day)
	key := p.Key()
	held := p.RenewRequest(node, key)
	ask := func(in nodeapi.RenewRequest) platformtest.Answer {
		t.Helper()
		return p.Do(nil, http.MethodPost, nodeapi.PathRenew, in)
	}
	// In the order of time: the server's certificate begins with the first call.
	var first nodeapi.EnrollResponse
	at := time.Duration(0)
	for _, off := range []time.Duration{-11 * time.Minute, -9 * time.Minute, 9 * time.Minute, 11 * time.Minute} {
		p.Clock.Advance(off - at)
		at = off
		a := ask(held)
		if off.Abs() > nodeapi.ProofTime {
			if a.Status != http.StatusUnprocessableEntity || a.Envelope.Code != nodeapi.CodeProofOutOfTime ||
				!strings.Contains(a.Envelope.Error, held.SignedAt) || !strings.Contains(string(a.Envelope.Details), "clock") {
				t.Errorf("%s: %d %s", off, a.Status, a.Body)
			}
			continue
		}
		if first.CertPEM == "" {
			first = issued(t, a)
		}
		if issued(t, a) != first || issued(t, p.Renew(node, key)) != first {
			t.Errorf("%s: the same key has another certificate", off)
		}
	}
	other := held
	other.SignedAt = p.Clock.Now().Add(time.Second).UTC().Format(time.RFC3339)
	if a := ask(other); a.Envelope.Code != nodeapi.CodeUnauthorized {
		t.Errorf("another time than was signed: %d %s", a.Status, a.Body)
	}
	other.SignedAt = ""
	if a := ask(other); a.Status != http.StatusBadRequest || a.Envelope.Code != nodeapi.CodeParameterMissing {
		t.Errorf("no time: %d %s", a.Status, a.Body)
	}
}
