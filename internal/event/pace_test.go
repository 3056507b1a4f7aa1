package event

import (
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

func TestPace(t *testing.T) {
	var p Pace
	if n := p.Sent(0, false, Away, 0, 0.5); n.Wait != look || n.Patient || p.Most() != nodeapi.MaxEvents {
		t.Errorf("nothing to tell: %+v", n)
	}
	if n := p.Sent(100, true, Took, 0, 0.5); !n.Told || n.Wait != 0 {
		t.Errorf("more: %+v", n)
	}
	if n := p.Sent(3, false, Took, 0, 0.5); !n.Told || n.Wait != look || n.Patient {
		t.Errorf("no more: %+v", n)
	}
	// One of a hundred isn't taken: it is found, and given up alone.
	n, calls := 100, 0
	for ; p.Most() > 1; calls++ {
		if next := p.Sent(n, true, Not, 0, 0.5); next.Told || next.Refused || next.Wait != 0 {
			t.Errorf("of %d: %+v", n, next)
		}
		n = p.Most()
	}
	if next := p.Sent(1, true, Not, 0, 0.5); !next.Refused || !next.Patient || calls > 7 {
		t.Errorf("after %d calls: %+v", calls, next)
	}
	for range 7 {
		p.Sent(p.Most(), true, Took, 0, 0.5)
	}
	if p.Most() != nodeapi.MaxEvents {
		t.Errorf("at most %d again", p.Most())
	}
	// Away: longer and longer, spread by chance, and never earlier than asked.
	last := time.Duration(0)
	for i := range 20 {
		n := p.Sent(10, false, Away, 0, 1)
		if n.Wait < last || n.Wait > awayMost || !n.Patient || n.Told || n.Refused || !p.Failing() {
			t.Errorf("failure %d: %+v after %v", i, n, last)
		}
		last = n.Wait
	}
	if low, high := p.Sent(10, false, Away, 0, 0).Wait, p.Sent(10, false, Away, 0, 0.999).Wait; low >= high/2 {
		t.Errorf("spread over %v to %v", low, high)
	}
	if n := p.Sent(10, false, Away, 10*time.Minute, 0); n.Wait < 10*time.Minute {
		t.Errorf("asked for ten minutes: %+v", n)
	}
	for range 20 {
		last = p.Sent(10, false, Denied, 0, 1).Wait
	}
	if last != deniedMost {
		t.Errorf("denied: %v", last)
	}
	if p.Sent(10, false, Took, 0, 0); p.Failing() {
		t.Error("it fails after a success")
	}
}
