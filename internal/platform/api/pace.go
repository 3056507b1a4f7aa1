package api

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
)

const (
	// HeartbeatInterval is how often nodes report where nothing else is said.
	HeartbeatInterval = 30 * time.Second
	// beatsAtOnce is how many heartbeats may be under way before pulses are put off: some hundred times what 10,000 nodes have under way on a
	// platform that keeps up, and so little that each is answered before its node gives it up.
	beatsAtOnce = 512
	// fullShare is how many times as many may be under way before heartbeats with all of a node's state are put off, too: those say something new.
	fullShare = 4
	// sheddingTold is how often the log says that heartbeats are put off.
	sheddingTold = time.Minute
)

// pace says how often nodes report, and puts them off where the platform doesn't keep up.
type pace struct {
	interval time.Duration
	most     int64
	told     *limiter

	under, shed atomic.Int64
}

func newPace(interval time.Duration, most int, now func() time.Time) *pace {
	p := &pace{interval: interval, most: int64(most), told: newLimiter(1, sheddingTold, now)}
	if p.interval <= 0 {
		p.interval = HeartbeatInterval
	}
	if p.most <= 0 {
		p.most = beatsAtOnce
	}
	return p
}

// seconds is the interval as nodes are told.
func (p *pace) seconds() int { return int(p.interval / time.Second) }

// silence is after how long a node that isn't heard of counts as silent: not before it has missed several heartbeats, and been put off.
func (p *pace) silence() time.Duration { return max(operatorapi.StaleAfter, 4*p.interval) }

// enter reports whether another heartbeat may be written down now; leave must follow if so.
func (p *pace) enter(pulse bool) bool {
	most := p.most
	if !pulse {
		most *= fullShare
	}
	if p.under.Add(1) > most {
		p.under.Add(-1)
		return false
	}
	return true
}

func (p *pace) leave() { p.under.Add(-1) }

// putOff is for how long a node is to leave its heartbeat: one interval and up to another, so that those that were put off ask for less, and don't
// come back together.
func (p *pace) putOff() time.Duration { return p.interval + rand.N(p.interval) }

// overloaded puts a node's heartbeat off.
func (a *API) overloaded(w http.ResponseWriter) *problem {
	shed := a.pace.shed.Add(1)
	if a.pace.told.allow() {
		a.log.Warn("heartbeats are put off: too many are under way", "most", a.pace.most, "put_off_so_far", shed,
			"hint", "give the platform or its database more, or say --heartbeat-interval")
	}
	seconds := int64(a.pace.putOff() / time.Second)
	w.Header().Set("Retry-After", fmt.Sprint(max(seconds, 1)))
	return refuse(http.StatusTooManyRequests, nodeapi.CodeTooManyRequests, "the platform has too many heartbeats under way")
}
