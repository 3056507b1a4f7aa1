package external

import (
	"context"
	"time"

	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/secret"
)

const (
	// grantLife is how long one answer of the token service is given to all nodes that ask: half of the shortest life that a token has.
	grantLife = 30 * time.Second
	// grantTimeout bounds the asking.
	grantTimeout = 20 * time.Second
	// maxGrants bounds the repositories that are remembered.
	maxGrants = 10_000
)

// grant is what was found out of one repository lately, as one user.
type grant struct {
	how   ociimage.Opening
	token secret.Text
	as    ociimage.Access
	at    time.Time
}

// good says whether what was found out holds for that user, now. A clock that was set back doesn't prolong it.
func (g grant) good(as ociimage.Access, now time.Time) bool {
	age := now.Sub(g.at)
	return age >= 0 && age < grantLife && g.as.Username == as.Username && g.as.Password.Equal(as.Password)
}

// grant finds out how a repository opens. Many nodes ask at once when a module changes: one asks for all.
func (g *Registry) grant(ctx context.Context, repository string, as ociimage.Access) (grant, error) {
	g.mu.Lock()
	known := g.grants[repository]
	g.mu.Unlock()
	if known.good(as, g.now()) {
		return known, nil
	}
	answer := g.flight.DoChan(repository, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grantTimeout)
		defer cancel()
		found := grant{as: as, at: g.now()}
		var err error
		if found.how, found.token, err = g.client.PullToken(ctx, g.name+"/"+repository, as); err != nil {
			return grant{}, err
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.grants) >= maxGrants {
			clear(g.grants)
		}
		g.grants[repository] = found
		return found, nil
	})
	select {
	case r := <-answer:
		if r.Err != nil {
			return grant{}, r.Err
		}
		return r.Val.(grant), nil
	case <-ctx.Done():
		return grant{}, context.Cause(ctx)
	}
}
