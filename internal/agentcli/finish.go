package agentcli

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/event"
	"github.com/powernode/powernode-agent/internal/fault"
)

// finishName is the command's name, and that of its unit.
const finishName = "finish"

// finishDoc is the shape of `finish --output json`.
type finishDoc struct {
	// Done says in sentences what was done.
	Done []string `json:"done,omitempty"`
}

func (d finishDoc) table(w io.Writer) error {
	for _, text := range d.Done {
		if _, err := io.WriteString(w, cli.Printable(text)+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// finishCommand is no command for people, whose every change begins with it: the agent's unit runs it before the service, and the
// service has systemd run it, with rights that the service hasn't.
func finishCommand(app *cli.App) *cobra.Command {
	var stateDir string
	cmd := &cobra.Command{
		Use:    finishName,
		Short:  "Finish or undo a live change that was interrupted, and take one back that nobody confirmed in time",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !toFinish(boot.RunDir) {
				return app.Print(finishDoc{}, finishDoc{}.table)
			}
			done, err := finish(cmd.Context(), stateDir)
			if a := finished(done, err); a.Result != "" {
				newTrail(app, stateDir).put(a)
			}
			doc := finishDoc{done}
			if printErr := app.Print(doc, doc.table); err == nil {
				err = printErr
			}
			return err
		},
	}
	stateFlag(cmd, &stateDir)
	return cmd
}

// finished is the record of what was brought to its end, or taken back, without anybody asking for it; one without a result is none.
func finished(done []string, err error) event.Audit {
	a := event.Audit{Who: theAgent, Command: "finish what a live change has left", Result: strings.Join(done, "; "), Failed: err != nil, At: time.Now()}
	if err != nil && len(done) > 0 {
		a.Result += "; failed: " + err.Error()
	}
	return a
}

// toFinish reports whether something is to be done that needs all rights.
func toFinish(runDir string) bool {
	p, waits, err := change.Waiting(runDir)
	return change.Unfinished(runDir) || err == nil && waits && p.Left <= 0
}

// finish does it, unless somebody is at work, who does the same. It says in sentences what was done, beside an error too.
func finish(ctx context.Context, stateDir string) ([]string, error) {
	st, unlock, err := openLocked(stateDir)
	if fault.KindOf(err) == fault.Retry {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	trust, err := boot.LoadTrust(boot.TrustPath)
	if err != nil {
		return nil, err
	}
	c, closing, err := newChanger(st, trust, false, nil)
	if err != nil {
		return nil, err
	}
	defer closing()
	return c.FinishEarlier(ctx)
}
