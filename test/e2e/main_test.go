package e2e

import (
	"flag"
	"os"
	"testing"

	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/test/alone"
	"github.com/powernode/powernode-agent/test/lab"
)

// TestMain builds the programs once and runs the tests in a mount namespace of their own, and in a network namespace
// of their own, so that no agent asks the cloud of this machine. This process only waits for its child, and cleans up
// also after one that was ended.
func TestMain(m *testing.M) {
	// Most of the time is spent waiting, for processes and for the time between two attempts.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(lab.Main(func() int { return alone.Main(func() int { return mounttest.Main(m) }) }))
}

func TestAlone(t *testing.T) { alone.Check(t) }

// needBoot skips a test where nothing can be booted.
func needBoot(t testing.TB) {
	t.Helper()
	mounttest.NeedMounts(t)
}
