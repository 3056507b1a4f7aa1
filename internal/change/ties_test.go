package change

import (
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/rootfs"
)

// TestTied: a lock keeps a change from going live, unless it ends by it or that was asked for; a socket doesn't.
func TestTied(t *testing.T) {
	lock, socket := live.Tie{Kind: live.LockTie, Path: "/opt/db", PID: 7, Command: "db", Unit: "db.service"}, live.Tie{Kind: live.SocketTie, Path: "/opt/s", PID: 8, Command: "s", Unit: "s.service"}
	alone := live.Tie{Kind: live.FIFOTie, Path: "/opt/f", PID: 9, Command: "cat"}
	restart := &aftercare.Plan{Restart: []aftercare.UnitStep{{Unit: "db.service"}}}
	for name, c := range map[string]struct {
		ties               []live.Tie
		plan               *aftercare.Plan
		breaks             bool
		obstacles, remarks string
	}{
		"nothing":                {},
		"a lock":                 {ties: []live.Tie{lock}, plan: &aftercare.Plan{}, obstacles: "process 7 db of db.service holds a lock of /opt/db"},
		"a lock that ends":       {ties: []live.Tie{lock}, plan: restart},
		"a unit that is stopped": {ties: []live.Tie{lock}, plan: &aftercare.Plan{Stop: restart.Restart}},
		"a lock that is broken":  {ties: []live.Tie{lock}, breaks: true, remarks: "doesn't keep out"},
		"a unit's socket":        {ties: []live.Tie{socket}, plan: &aftercare.Plan{}},
		"a FIFO":                 {ties: []live.Tie{alone}, plan: restart, remarks: "process 9 cat has the FIFO open at /opt/f"},
	} {
		f := Findings{Aftercare: c.plan}
		f.tied(c.ties, c.breaks)
		obstacles, remarks := strings.Join(f.Obstacles, "; "), strings.Join(f.Remarks, "; ")
		if len(f.Ties) != len(c.ties) || (c.obstacles == "") != (obstacles == "") || !strings.Contains(obstacles, c.obstacles) || (c.remarks == "") != (remarks == "") || !strings.Contains(remarks, c.remarks) {
			t.Errorf("%s: %q, %q, %+v", name, obstacles, remarks, f.Ties)
		}
	}
	held := tiedUnits([]live.Tie{lock, socket, alone})
	if len(held) != 1 || held[0].Unit != "s.service" || !strings.Contains(held[0].Why, "/opt/s") {
		t.Errorf("%+v", held)
	}
}

// TestLocksKeepAChangeFromGoingLive, those that are held for longer than a moment, in a directory that is replaced.
func TestLocksKeepAChangeFromGoingLive(t *testing.T) {
	m := newMounted(t)
	old := m.generation(map[string]string{"usr/app": long("1"), "opt/x": "1"}, nil)
	next := m.generation(map[string]string{"usr/app": long("2"), "opt/x": "1"}, nil)
	m.boot(old, rootfs.Ephemeral)
	examine := func(breaks bool) Findings {
		t.Helper()
		s := m.step(old, next)
		s.BreakLocks = breaks
		f, err := m.machine().Examine(t.Context(), s)
		m.must(err)
		return f
	}
	lock := func(path string) *os.File {
		t.Helper()
		f, err := os.OpenFile(m.in(path), os.O_CREATE|os.O_RDWR, 0o600)
		m.must(err)
		t.Cleanup(func() { f.Close() })
		m.must(unix.Flock(int(f.Fd()), unix.LOCK_EX))
		return f
	}
	lock("opt/elsewhere")
	if f := examine(false); len(f.Obstacles)+len(f.Ties) > 0 {
		t.Errorf("a lock in another directory: %+v", f)
	}
	held := lock("usr/held")
	if f := examine(false); len(f.Obstacles) != 1 || !strings.Contains(f.Obstacles[0], "/usr/held") || !slices.ContainsFunc(f.Ties, func(tie Tie) bool { return tie.PID == os.Getpid() }) {
		t.Errorf("a lock: %+v", f)
	}
	if f := examine(true); len(f.Obstacles) != 0 || len(f.Ties) != 1 || len(f.Remarks) == 0 {
		t.Errorf("a lock that is broken: %+v", f)
	}
	m.must(held.Close())
	for range 3 {
		passing := lock("usr/passing")
		done := make(chan Findings)
		go func() { done <- examine(false) }()
		m.must(passing.Close())
		if f := <-done; len(f.Obstacles) != 0 {
			t.Errorf("a lock that is held for a moment: %+v", f)
		}
	}
}
