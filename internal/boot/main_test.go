package boot

import (
	"os"
	"testing"

	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/test/alone"
)

// TestMain keeps the tests from asking the cloud of the machine that they run on, and their mounts from it.
func TestMain(m *testing.M) { os.Exit(alone.Main(func() int { return mounttest.Main(m) })) }

func TestAlone(t *testing.T) { alone.Check(t) }
