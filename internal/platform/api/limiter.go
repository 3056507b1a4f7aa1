package api

import (
	"sync"
	"time"
)

// strangerEvents is how many events of one kind a minute callers without standing can cause. What is beyond
// goes to the log only, so that strangers can't fill the database.
const strangerEvents = 30

// limiters are a limiter for each of some names: who uses up one leaves the others'. The names are few, and no stranger's to choose.
type limiters struct {
	make func() *limiter

	mu sync.Mutex
	of map[string]*limiter
}

func newLimiters(most int, span time.Duration, now func() time.Time) *limiters {
	return &limiters{make: func() *limiter { return newLimiter(most, span, now) }, of: map[string]*limiter{}}
}

func (l *limiters) allow(name string) bool {
	l.mu.Lock()
	one := l.of[name]
	if one == nil {
		one = l.make()
		l.of[name] = one
	}
	l.mu.Unlock()
	return one.allow()
}

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
