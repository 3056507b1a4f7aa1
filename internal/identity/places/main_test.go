package places

import (
	"os"
	"testing"

	"github.com/powernode/powernode-agent/test/alone"
)

// TestMain keeps the tests from asking the cloud of the machine that they run on.
func TestMain(m *testing.M) { os.Exit(alone.Main(m.Run)) }

func TestAlone(t *testing.T) { alone.Check(t) }
