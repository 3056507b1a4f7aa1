package runtime

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// plight says what the operator should know of a certificate, and of the last attempt to replace it; "" for
// nothing.
func plight(s enroll.Status, err error) string {
	switch w := enroll.AsWaiting(err); {
	case w != nil:
		return fmt.Sprintf("%s; its renewal waits for an operator: %s", s.Reason, w.Message)
	case err != nil && s.Reason == "":
		return err.Error()
	case err != nil:
		return fmt.Sprintf("%s; %v", s.Reason, err)
	case s.Situation.Usable() && s.Situation != enroll.Inactive:
		return ""
	}
	return sentence(s.Reason, s.Hint)
}

func sentence(text, hint string) string {
	if hint == "" {
		return text
	}
	return text + "; " + hint
}

// Remarks says what the operator should know, if there is something.
func (c *Certificate) Remarks() []string {
	if n := c.Notice(); n != "" {
		return []string{n}
	}
	return nil
}

// Notice says what the operator should know in a sentence, or "".
func (c *Certificate) Notice() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.notice
}

// CABundle returns the SHA-256 of the CA bundle that the node trusts, "" where it has none.
func (c *Certificate) CABundle() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.view.Status.CABundleSHA256
}

// Answered hears what the platform answered to a heartbeat.
func (c *Certificate) Answered(a *nodeapi.HeartbeatResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.view.Status.Situation.Usable() {
		c.view.Renew = Attempts{} // it is let in
	}
	news := a.Refresh && !c.view.Refresh || a.CABundleSHA256 != c.view.Bundle
	c.view.Refresh = a.Refresh
	if a.CABundleSHA256 != c.view.Bundle {
		c.view.Bundle, c.view.CA = a.CABundleSHA256, Attempts{}
	}
	if !news {
		return
	}
	signal(c.wake)
}

// Refused hears why a heartbeat wasn't taken: what is said against the certificate is for this loop to see to, now.
func (c *Certificate) Refused(err error) {
	if nodehttp.StatusOf(err) == http.StatusUnauthorized || errors.Is(err, nodehttp.ErrOwnCertificate) {
		signal(c.wake)
	}
}
