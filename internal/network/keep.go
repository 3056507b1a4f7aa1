package network

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// exchange asks servers for one link. Each call sends and sends again for a while and then gives up.
type exchange interface {
	// obtain asks whoever is there; before is the lease that the link had, or nil.
	obtain(ctx context.Context, before *lease) (*lease, error)
	// renew asks for more time: the server that gave l or, where rebind is set, any. errGone says
	// that the server takes the lease back.
	renew(ctx context.Context, l *lease, rebind bool) (*lease, error)
}

// errGone is a server's word that a lease isn't, or is no longer, ours.
var errGone = errors.New("the server takes the address back")

// report is the news of one keeper.
type report struct {
	keeper *keeper
	// lease is what the link has now; nil where it has none. Beside an error it is the one that it had.
	lease *lease
	// err is why the last question brought nothing.
	err error
}

// keeper gets a lease for one link and keeps it.
type keeper struct {
	exchange exchange
	before   *lease
	reports  chan<- report
	stop     context.CancelFunc
}

// Pauses between two attempts that brought nothing; the attempts themselves are some ten seconds long.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

func (k *keeper) run(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		l, err := guarded(func() (*lease, error) { return k.exchange.obtain(ctx, k.before) })
		if err != nil {
			if !k.tell(ctx, k.left(), err) || !sleep(ctx, pause) {
				return
			}
			pause = min(2*pause, lastPause)
			continue
		}
		pause = firstPause
		if !k.tell(ctx, l, nil) {
			return
		}
		why := k.hold(ctx, &l)
		k.before = l
		if errors.Is(why, errGone) {
			k.before = nil
		}
		if !k.tell(ctx, nil, why) {
			return
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// hold renews *l until it has ended, and says why it has.
func (k *keeper) hold(ctx context.Context, l **lease) error {
	asked := (*l).granted
	reason := errEnded
	for {
		now := time.Now()
		p, at := (*l).next(now, asked)
		switch {
		case p == phaseOver:
			return reason
		case at.IsZero():
			<-ctx.Done()
			return ctx.Err()
		case at.After(now):
			if !sleep(ctx, at.Sub(now)) {
				return ctx.Err()
			}
			continue
		}
		asked = now
		renewed, err := k.renew(ctx, *l, p)
		switch {
		case err == nil:
			*l, asked, reason = renewed, renewed.granted, errEnded
			if !k.tell(ctx, renewed, nil) {
				return ctx.Err()
			}
		case errors.Is(err, errGone):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		default:
			reason = fmt.Errorf("%w: %w", errEnded, err)
		}
	}
}

// renew asks until the lease's end at most, so that the end is noticed.
func (k *keeper) renew(ctx context.Context, l *lease, p phase) (*lease, error) {
	ctx, cancel := context.WithDeadline(ctx, l.until())
	defer cancel()
	return guarded(func() (*lease, error) { return k.exchange.renew(ctx, l, p == phaseRebind) })
}

// left returns the lease that the link had before, for as long as it lasts: after its cable was out for a
// moment, a server that doesn't answer at once is no reason to give an address up.
func (k *keeper) left() *lease {
	if k.before == nil {
		return nil
	}
	if end := k.before.until(); !end.IsZero() && !time.Now().Before(end) {
		return nil
	}
	return k.before
}

// guarded makes an error of a panic: this may be a part of the process that must not end, and what it
// reads is anybody's who is on the link.
func guarded(ask func() (*lease, error)) (l *lease, err error) {
	defer func() {
		if r := recover(); r != nil {
			l, err = nil, fmt.Errorf("a defect in reading an answer: %v", r)
		}
	}()
	return ask()
}

var errEnded = errors.New("the lease has ended")

// tell reports, and returns false once nobody listens. A keeper that was told to stop has lost nothing:
// what it set up stays.
func (k *keeper) tell(ctx context.Context, l *lease, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	select {
	case k.reports <- report{keeper: k, lease: l, err: err}:
		return true
	case <-ctx.Done():
		return false
	}
}

// sleep returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
