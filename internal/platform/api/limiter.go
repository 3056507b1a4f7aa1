package api

import (
	"sync"
	"time"
)

// strangerEvents is how many events a minute callers without standing can cause. What is beyond
// goes to the log only, so that strangers can't fill the database.
const strangerEvents = 30

// limiter lets through so many in each span of time.
type limiter struct {
	most int
	span time.Duration
	now  func() time.Time

	mu    sync.Mutex
	begun time.Time
	used  int
}

func newLimiter(most int, span time.Duration, now func() time.Time) *limiter {
	return &limiter{most: most, span: span, now: now}
}

func (l *limiter) allow() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	// The clock may be set back, too.
	if now := l.now(); now.Sub(l.begun) >= l.span || now.Before(l.begun) {
		l.begun, l.used = now, 0
	}
	l.used++
	return l.used <= l.most
}
