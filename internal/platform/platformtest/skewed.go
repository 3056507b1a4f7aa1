package platformtest

import (
	"path/filepath"
	"time"
)

// ReplicaOff is Replica on a machine whose clock is off by so much. The Clock of what it returns is the right one.
func (p *Platform) ReplicaOff(by time.Duration) *Platform {
	p.t.Helper()
	o := p.options
	o.Machine = func() time.Time { return time.Now().Add(by) }
	off := &Clock{}
	off.Advance(by + time.Until(p.Clock.Now()))
	other := start(p.t, o, filepath.Join(p.t.TempDir(), "replica"), "127.0.0.1:0", off, &p.Config)
	other.Clock = p.Clock
	return other
}
