package agentcli

import (
	"errors"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/change"
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

// TestExitCodeOfAChange: what is done in part is told by the exit code, too.
func TestExitCodeOfAChange(t *testing.T) {
	for _, c := range []struct {
		result change.Result
		want   error
	}{
		{change.Result{Outcome: change.WentLive}, nil},
		{change.Result{Outcome: change.WentLive, Undone: []string{"run ldconfig: exit code 1"}}, cli.ExitStatus(cli.ExitPartial)},
		{change.Result{Outcome: change.WentLive, Failed: []change.Failure{{Name: "app"}}}, cli.ExitStatus(cli.ExitPartial)},
		{change.Result{Outcome: change.TakenBack}, cli.ExitStatus(cli.ExitPartial)},
	} {
		var out strings.Builder
		app := &cli.App{Out: &out}
		err := (&changeFlags{}).finish(app, &changeDoc{Result: c.result})
		if !errors.Is(err, c.want) {
			t.Errorf("%+v: %v, want %v", c.result, err, c.want)
		}
		if len(c.result.Undone) > 0 && !strings.Contains(out.String(), "ldconfig") {
			t.Error(out.String())
		}
	}
}
