package change

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// percent returns the runtime's setting, as it was.
func percent(t *testing.T) int {
	t.Helper()
	p := debug.SetGCPercent(100)
	debug.SetGCPercent(p)
	return p
}

func TestLeaveGarbage(t *testing.T) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		t.Skip("GOGC or GOMEMLIMIT is set")
	}
	before, limit := percent(t), debug.SetMemoryLimit(-1)
	same := func(when string) {
		t.Helper()
		if p, l := percent(t), debug.SetMemoryLimit(-1); p != before || l != limit || leaving.Load() {
			t.Errorf("%s: %d %%, limit %d, want %d and %d", when, p, l, before, limit)
		}
	}
	for _, available := range []uint64{0, 100 << 20} {
		restore := leaveGarbage(available)
		same("with little memory")
		restore()
	}
	restore := leaveGarbage(4 << 30)
	if p := percent(t); p != -1 {
		t.Errorf("%d %%: garbage is collected", p)
	}
	leaveGarbage(4 << 30)() // another one changes nothing
	if p := percent(t); p != -1 {
		t.Errorf("%d %% after another one was done", p)
	}
	restore()
	same("once it is over")

	restore = leaveGarbage(4 << 30)
	defer restore()
	for range 1000 {
		runtime.GC()
		if !leaving.Load() {
			break
		}
		time.Sleep(time.Millisecond)
	}
	same("after a collection")
}

func TestAvailableMemory(t *testing.T) {
	if n := availableMemory(); n < 1<<20 || n > 1<<50 {
		t.Errorf("%d bytes", n)
	}
}
