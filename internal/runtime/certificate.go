package runtime

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// CertificateKeeper keeps the node's credentials; each of its calls makes one attempt. A *enroll.Keeper is one.
type CertificateKeeper interface {
	// Now is the time that certificates are judged by; Prepare makes sure of it.
	Now() time.Time
	Prepare(ctx context.Context) error
	Status() (enroll.Status, error)
	Rotate(ctx context.Context) error
	Renew(ctx context.Context) error
	AdoptCA(ctx context.Context) error
}

// Certificate is the loop that keeps the node's certificate: it rotates it in time, renews one that has ended,
// and follows the platform's CA. It is made by NewCertificate.
type Certificate struct {
	keeper CertificateKeeper
	log    *slog.Logger
	wake   chan struct{}
	// fresh has something in it when there is another certificate than before.
	fresh chan struct{}

	mu     sync.Mutex
	view   CertificateView
	notice string
}

// NewCertificate returns the loop, which does nothing until Run; nil for log discards it.
func NewCertificate(k CertificateKeeper, log *slog.Logger) *Certificate {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Certificate{keeper: k, log: log, wake: make(chan struct{}, 1), fresh: make(chan struct{}, 1)}
	// The first heartbeat is to have it; the loop logs what goes wrong.
	_ = c.look()
	return c
}

// certificateTime bounds one step.
const certificateTime = 90 * time.Second

// Run implements Loop.
func (c *Certificate) Run(ctx context.Context, alive func(time.Duration)) {
	complaint := ""
	for ctx.Err() == nil {
		alive(2 * certificateTime)
		step, wait, err := c.step(ctx)
		if ctx.Err() != nil {
			return
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != complaint && text != "" {
			c.log.Warn("the node's certificate can't be kept up", "error", err, "hint", fault.HintOf(err))
		}
		if step != CertificateRest || text != "" {
			complaint = text
		}
		alive(wait)
		select {
		case <-ctx.Done():
		case <-c.wake:
		case <-time.After(wait):
		}
	}
}

// step does what is due, and returns how long to wait then.
func (c *Certificate) step(ctx context.Context) (CertificateStep, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, certificateTime)
	defer cancel()
	// A clock that nobody vouches for would have a good certificate renewed.
	prepared := c.keeper.Prepare(ctx)
	if err := c.look(); err != nil {
		return CertificateRest, certificateBad, err
	}
	c.mu.Lock()
	step, wait := NextCertificateStep(c.keeper.Now(), c.view)
	c.mu.Unlock()
	if step == CertificateRest {
		return step, wait, nil
	}
	err := prepared
	if err == nil {
		err = c.do(ctx, step)
	}
	c.tried(step, err)
	return step, time.Millisecond, err
}

// do makes one attempt.
func (c *Certificate) do(ctx context.Context, step CertificateStep) error {
	switch step {
	case CertificateRotate:
		return c.keeper.Rotate(ctx)
	case CertificateRenew:
		return c.keeper.Renew(ctx)
	case CertificateCA:
		return c.keeper.AdoptCA(ctx)
	case CertificateRest:
	}
	return nil
}

// look reads what the disk holds.
func (c *Certificate) look() error {
	status, err := c.keeper.Status()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.view.Status
	if was.Serial != status.Serial {
		// What failed with another certificate says nothing of this one. But a new one is no success where it doesn't serve either, by a clock
		// that is years ahead, and where the platform let the last one in no more, none before it lets this one in: they aren't made in a circle.
		c.view.Refresh = false
		if serves(status, c.keeper.Now()) {
			c.view.Rotate = Attempts{}
			if !was.Shut {
				c.view.Renew = Attempts{}
			}
		}
		if was.Serial != "" {
			signal(c.fresh)
		}
	}
	c.view.Status = status
	// Who isn't let in asks for the CA although it has the one that the platform spoke of: that isn't done in a circle either.
	if status.CABundleSHA256 == c.view.Bundle && !status.Shut {
		c.view.CA = Attempts{}
	}
	if was.Situation != status.Situation || c.view.Rotate.Failures == 0 && c.view.Renew.Failures == 0 {
		c.notice = plight(status, nil)
	}
	return nil
}

// serves tells whether a certificate is in force and needs no other yet.
func serves(s enroll.Status, now time.Time) bool {
	return (s.Situation == enroll.Valid || s.Situation == enroll.Expiring) && now.Before(s.RotateAt)
}

// tried takes down what became of an attempt.
func (c *Certificate) tried(step CertificateStep, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := map[CertificateStep]*Attempts{CertificateRotate: &c.view.Rotate, CertificateRenew: &c.view.Renew, CertificateCA: &c.view.CA}[step]
	if a == nil {
		return
	}
	// What worked counts as well, until it is seen to have helped: by a certificate that serves, or the bundle that the platform speaks of.
	a.Failures, a.Last, a.Asked = a.Failures+1, c.keeper.Now(), nodehttp.RetryAfter(err)
	a.Refused = err != nil && fault.KindOf(err) != fault.Retry
	if w := enroll.AsWaiting(err); w != nil {
		a.Asked = w.Again
	}
	if step != CertificateCA && err != nil {
		c.notice = plight(c.view.Status, err)
	}
}

// signal puts something into a channel of one place.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
