package faults

import (
	"os"
	"runtime/debug"
	"testing"
)

// TestMain keeps what the tests write in memory, where there is such a directory: what they are about is the wire, and every write is synced.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // there is room, and handshakes make much garbage
	os.Exit(func() int {
		dir, err := os.MkdirTemp("/dev/shm", "powernode-faults-")
		if err != nil {
			return m.Run()
		}
		defer os.RemoveAll(dir) //nolint:errcheck // it is memory
		if os.Setenv("TMPDIR", dir) != nil {
			return 1
		}
		return m.Run()
	}())
}
