package platform_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// TestTokenLivesAnHour: where no life is asked for.
func TestTokenLivesAnHour(t *testing.T) {
	if operatorapi.DefaultTokenTTL != time.Hour {
		t.Errorf("by default %s", operatorapi.DefaultTokenTTL)
	}
	p := platformtest.Start(t)
	p.Clock.Advance(24 * time.Hour) // it is the platform's clock that counts
	for _, name := range []string{"early", "late"} {
		if _, err := p.Operator.CreateNode(t.Context(), operatorapi.NodeCreate{Name: name, Architecture: "amd64"}); err != nil {
			t.Fatal(err)
		}
	}
	before := p.Clock.Now()
	token := func(name string) operatorapi.Token {
		t.Helper()
		token, err := p.Operator.CreateToken(t.Context(), name, operatorapi.TokenCreate{})
		if err != nil {
			t.Fatal(err)
		}
		if lives := token.ExpiresAt.Sub(before); (lives - time.Hour).Abs() > time.Minute {
			t.Errorf("the token of node %s lives for %s", name, lives)
		}
		return token
	}
	early, late := token("early"), token("late")
	enroll := func(token operatorapi.Token) platformtest.Answer {
		return p.Do(nil, http.MethodPost, nodeapi.PathEnroll, nodeapi.EnrollRequest{BootstrapToken: token.Token, CSRPEM: p.CSR(p.Key())})
	}
	p.Clock.Advance(early.ExpiresAt.Sub(p.Clock.Now()) - time.Minute)
	if a := enroll(early); a.Status != http.StatusOK {
		t.Errorf("a minute before its end: %d %s", a.Status, a.Body)
	}
	p.Clock.Advance(2 * time.Minute)
	if a := enroll(late); a.Envelope.Code != nodeapi.CodeTokenRefused {
		t.Errorf("a minute after its end: %d %s", a.Status, a.Body)
	}
}
