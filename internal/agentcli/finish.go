package agentcli

import (
	"context"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/event"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/store"
)

// finishName is the command's name, and that of its unit.
const finishName = "finish"

// finishDoc is the shape of `finish --output json`.
type finishDoc struct {
	// Done says in sentences what was done.
	Done []string `json:"done,omitempty"`
	// Undone are the steps that failed after it, each in a sentence.
	Undone []string `json:"undone,omitempty"`
}

// said is all of it in sentences.
func (d finishDoc) said() []string {
	said := slices.Clone(d.Done)
	for _, text := range d.Undone {
		said = append(said, "done in part: "+text)
	}
	return said
}

func (d finishDoc) table(w io.Writer) error {
	for _, text := range d.said() {
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
			doc, err := finish(cmd.Context(), stateDir)
			if a := finished(doc, err); a.Result != "" {
				newTrail(app, stateDir).put(a)
			}
			if printErr := app.Print(doc, doc.table); err == nil {
				err = printErr
			}
			if err == nil && len(doc.Undone) > 0 {
				err = cli.ExitStatus(cli.ExitPartial)
			}
			return err
		},
	}
	stateFlag(cmd, &stateDir)
	return cmd
}

// finished is the record of what was brought to its end, or taken back, without anybody asking for it; one without a result is none.
func finished(doc finishDoc, err error) event.Audit {
	a := event.Audit{Who: theAgent, Command: "finish what a live change has left", Result: strings.Join(doc.said(), "; "), Failed: err != nil, At: time.Now()}
	if err != nil && a.Result != "" {
		a.Result += "; failed: " + err.Error()
	}
	return a
}

// toFinish reports whether something is to be done that needs all rights.
func toFinish(runDir string) bool {
	p, waits, err := change.Waiting(runDir)
	// A record that can't be read is removed.
	return change.Unfinished(runDir) || err != nil || waits && p.Left <= 0
}

// finish does it, unless somebody is at work, who does the same. What it tells is good beside an error too.
func finish(ctx context.Context, stateDir string) (finishDoc, error) {
	if err := atHome("/", stateDir); err != nil {
		return finishDoc{}, err
	}
	st, unlock, err := openLocked(stateDir)
	if fault.KindOf(err) == fault.Retry {
		return finishDoc{}, nil
	}
	if err != nil {
		return finishDoc{}, err
	}
	defer unlock()
	doc, err := interrupted(ctx, "/", st)
	if err != nil || !toFinish(boot.RunDir) {
		return doc, err
	}
	trust, err := boot.LoadTrust(boot.TrustPath)
	if err != nil {
		return doc, err
	}
	c, closing, err := newChanger(st, trust, false, nil)
	if err != nil {
		return doc, err
	}
	defer closing()
	e, err := c.FinishEarlier(ctx)
	return finishDoc{append(doc.Done, e.Said...), append(doc.Undone, e.Undone...)}, err
}

// interrupted brings to its end what was interrupted. Nothing is mounted for that that isn't there, and so it asks for nothing: neither how images can be
// mounted, which takes devices that the agent's unit keeps from the commands before its start, nor at which level, nor for a trust policy.
func interrupted(ctx context.Context, root string, st *store.Store) (finishDoc, error) {
	facts, err := boot.ReadFacts(root)
	if err != nil || !change.Unfinished(filepath.Join(root, boot.RunDir)) {
		return finishDoc{}, err
	}
	// Without the policy nobody may have privileged services.
	trust, trustErr := boot.LoadTrust(filepath.Join(root, boot.TrustPath))
	var config change.Config
	if !machineHere(root, st, facts, trust, &config) {
		return finishDoc{}, nil
	}
	config.Store = st
	c := change.New(config)
	text, err := c.Recover(ctx)
	doc := finishDoc{Undone: c.Undone()}
	if text != "" {
		doc.Done = []string{text}
	}
	if trustErr != nil {
		doc.Undone = append(doc.Undone, fault.OneLine(trustErr.Error()))
	}
	return doc, err
}
