package agentcli

import (
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
)

// TestChangeFlags refuses what nobody can mean before anything is looked at.
func TestChangeFlags(t *testing.T) {
	for _, c := range []struct{ flags, want string }{
		{"--confirm 1ms", "--confirm 1ms"},
		{"--confirm 25h", "--confirm 25h"},
		{"--local-changes drop", `--local-changes "drop"`},
		{"--local-changes replace --confirm 60s", "doesn't come back"},
	} {
		_, err := runAgent(t, cli.Table, updateCommand, strings.Fields(c.flags+" --state "+t.TempDir())...)
		if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Input || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.flags, err)
		}
	}
}
