package enroll

import (
	"net/http"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// final reports whether a code says something of the certificate itself, for the next start to know. A 401
// without one may be a proxy's, or a platform's that has lost its data.
func final(code nodeapi.Code) bool {
	switch code {
	case nodeapi.CodeCertificateRevoked, nodeapi.CodeCertificateExpired, nodeapi.CodeCertificateSuperseded, nodeapi.CodeNodeInactive:
		return true
	}
	return false
}

// afterRefusal returns what becomes of credentials when the platform answered err to them; c itself where that
// is nothing. A pair that has never been used gives way to the one before while that is in force: the one
// before is kept for that. Neither is thrown away.
func afterRefusal(c *Credentials, err error, now time.Time) *Credentials {
	if nodehttp.StatusOf(err) != http.StatusUnauthorized {
		return c
	}
	code := nodehttp.CodeOf(err)
	if p := c.previous; p != nil && now.Before(p.Leaf.NotAfter) && mayReturn(p.saidCode(), code) {
		old := *c
		if !final(code) {
			code = nodeapi.CodeUnauthorized
		}
		old.said, old.origin, old.previous = &verdict{code, now.UTC()}, refused, nil
		return p.with(func(n *Credentials) { n.origin, n.previous = "", &old })
	}
	if !final(code) || c.saidCode() == code {
		return c
	}
	return c.with(func(n *Credentials) { n.said = &verdict{code, now.UTC()} })
}

// mayReturn decides whether a pair of which the platform said was comes back for one of which it says is: one that
// was never refused does, and one that was refused without a reason does for one that was refused with one.
func mayReturn(was, is nodeapi.Code) bool { return was == "" || !final(was) && final(is) }

// afterSuccess returns what becomes of credentials that the platform took: the pair before is forgotten, and so
// is every bad word.
func afterSuccess(c *Credentials) *Credentials {
	if c.previous == nil && c.said == nil {
		return c
	}
	return c.with(func(n *Credentials) { n.previous, n.said = nil, nil })
}

// remember keeps what a refusal said of c.
func remember(d *durable.Dir, c *Credentials, err error, now time.Time) error {
	if n := afterRefusal(c, err, now); n != c {
		return save(d, n)
	}
	return nil
}
