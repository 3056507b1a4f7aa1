package cloud_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/powernode/powernode-agent/test/alone"
)

// TestMain runs all tests of this package in a new network namespace, whose lo has the clouds' address. Where such a
// namespace can't be made, none of them runs: they must never reach the address on the machine that they run on.
func TestMain(m *testing.M) {
	os.Exit(alone.MainAsCloud(func() int {
		goleak.VerifyTestMain(m)
		return 0
	}))
}

func TestAlone(t *testing.T) { alone.Check(t) }
