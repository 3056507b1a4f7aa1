package agentcli

import (
	"fmt"
	"io"
	"strings"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/health/restart"
)

// changeDoc is the documented shape of what the changing commands print with --output json.
type changeDoc struct {
	change.Result
	// Restart is how the machine restarts into what is staged: "soft", "full", or "none" where it doesn't.
	Restart string `json:"restart"`
}

func (d *changeDoc) table(w io.Writer) error {
	pairs := [][2]string{{"change", d.words()}}
	if !d.RootDigest.IsZero() && d.RootDigest != d.FromRootDigest {
		from := "none"
		if !d.FromRootDigest.IsZero() {
			from = d.FromRootDigest.String()
		}
		pairs = append(pairs, [2]string{"root digest", d.RootDigest.String()}, [2]string{"instead of", from})
	}
	if p := d.Pulled; p.Modules > 0 {
		pairs = append(pairs, [2]string{"pulled", fmt.Sprintf("%s in %s, %s", cli.Bytes(uint64(p.Bytes)), cli.Count(p.Layers, "layer"), cli.Count(int(p.NewObjects), "new object"))})
	}
	for _, name := range d.Detached {
		pairs = append(pairs, [2]string{"detached", name + ", which the platform assigns"})
	}
	for _, f := range d.Failed {
		text := fmt.Sprintf("%s %s: %s", f.Name, f.Version, f.Reason)
		if f.Kept != "" {
			text += "; version " + f.Kept + " stays"
		}
		pairs = append(pairs, [2]string{"refused", text})
	}
	pairs = append(pairs, d.planRows()...)
	for _, text := range d.Undone {
		pairs = append(pairs, [2]string{"not done", text})
	}
	for _, m := range d.Mended {
		pairs = append(pairs, [2]string{"mended", m})
	}
	for _, r := range d.Remarks {
		pairs = append(pairs, [2]string{"remark", r})
	}
	if err := cli.Pairs(w, pairs); err != nil {
		return err
	}
	if err := d.changeTable(w); err != nil {
		return err
	}
	return d.fileTable(w)
}

func (d *changeDoc) changeTable(w io.Writer) error {
	if len(d.Changes) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	rows := make([][]string, len(d.Changes))
	for i, c := range d.Changes {
		size := ""
		if c.Size > 0 {
			size = cli.Bytes(uint64(c.Size))
		}
		rows[i] = []string{c.Kind, c.Name, c.From, c.To, size}
	}
	return cli.Rows(w, []string{"CHANGE", "MODULE", "FROM", "TO", "TO PULL"}, rows)
}

// fileTable lists the files of a dry run: afterwards, nobody needs them but by --output json.
func (d *changeDoc) fileTable(w io.Writer) error {
	p := d.Plan
	if p == nil || !d.DryRun || len(p.Files.List) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	rows := make([][]string, len(p.Files.List))
	for i, f := range p.Files.List {
		rows[i] = []string{f.Kind.String(), f.What.String(), f.Module, printable(f.Path)}
	}
	if err := cli.Rows(w, []string{"CHANGE", "OF", "MODULE", "FILE"}, rows); err != nil {
		return err
	}
	if p.Files.More > 0 {
		fmt.Fprintf(w, "and %d more; --files names all\n", p.Files.More)
	}
	return nil
}

// printable quotes a path that could disturb a terminal.
func printable(path string) string {
	if q := fmt.Sprintf("%q", path); len(q) != len(path)+2 {
		return q
	}
	return path
}

// mostRows is how many lines of one kind the table has; the JSON has all that the plan has.
const mostRows = 10

// planRows are the lines of the table about the plan.
func (d *changeDoc) planRows() [][2]string {
	p := d.Plan
	if p == nil {
		return nil
	}
	var rows [][2]string
	some := func(name string, list []string) {
		for i, text := range list {
			if i == mostRows {
				rows = append(rows, [2]string{name, fmt.Sprintf("and %d more", len(list)-mostRows)})
				return
			}
			rows = append(rows, [2]string{name, text})
		}
	}
	if p.Way != change.Live {
		some("not live", p.Reasons)
	}
	rows = append(rows, [2]string{"files", fmt.Sprintf("%d added, %d changed, %d removed", p.Files.Added, p.Files.Changed, p.Files.Removed)})
	if d.DryRun && p.PullBytes > 0 {
		rows = append(rows, [2]string{"to pull", cli.Bytes(uint64(p.PullBytes))})
	}
	var contested, conflicts []string
	for _, c := range p.Contested {
		if c.Decided {
			contested = append(contested, fmt.Sprintf("%s: %s wins over %s: %s", printable(c.Path), c.Winner, strings.Join(c.Losers, ", "), c.Reason))
		}
	}
	some("contested", contested)
	for _, c := range p.Conflicts {
		what := "; the local one stays"
		if c.Replaced {
			what = "; the local one is replaced"
		}
		conflicts = append(conflicts, c.Text+what)
	}
	some("changed here", conflicts)
	if p.Aftercare != nil {
		for _, steps := range careSteps(p.Aftercare) {
			some(steps.what, steps.lines)
		}
	}
	return rows
}

type careLines struct {
	what  string
	lines []string
}

// careSteps are what the running system needs, in words.
func careSteps(p *aftercare.Plan) []careLines {
	units := func(what string, steps []aftercare.UnitStep) careLines {
		c := careLines{what: what}
		for _, s := range steps {
			c.lines = append(c.lines, s.Unit+": "+strings.Join(s.Because, "; "))
		}
		return c
	}
	run := careLines{what: "run"}
	for _, r := range p.Run {
		run.lines = append(run.lines, r.Name+": "+strings.Join(r.Because, "; "))
	}
	if len(p.DaemonReload) > 0 {
		run.lines = append(run.lines, "daemon-reload: "+strings.Join(p.DaemonReload, "; "))
	}
	processes := careLines{what: "in use"}
	for _, q := range p.Processes {
		uses := make([]string, len(q.Uses))
		for i, u := range q.Uses {
			uses[i] = printable(u.Path)
		}
		processes.lines = append(processes.lines, fmt.Sprintf("by %s (%d): %s", q.Name, q.PID, strings.Join(uses, ", ")))
	}
	return []careLines{
		units("stop", p.Stop), run, units("reload", p.Reload), units("restart", p.Restart), units("start", p.Start), units("later", p.Later), processes,
	}
}

// words says what became of the change.
func (d *changeDoc) words() string {
	when := "at the next boot"
	switch d.Restart {
	case string(restart.Soft):
		when = "now, by a soft-reboot"
	case string(restart.Full):
		when = "now, by a restart"
	}
	switch d.Outcome {
	case change.WentLive:
		if !d.ConfirmBy.IsZero() {
			return fmt.Sprintf("generation %d runs, and is taken back unless the platform is reached", d.Generation)
		}
		return fmt.Sprintf("generation %d runs", d.Generation)
	case change.TakenBack:
		if d.Plan != nil && d.Plan.Way != change.Live {
			return fmt.Sprintf("it is taken back; generation %d is staged, and tried at the next boot", d.Generation)
		}
		return fmt.Sprintf("it is taken back; generation %d runs again", d.Generation)
	case change.Staged:
		return fmt.Sprintf("generation %d is staged; it is tried %s", d.Generation, when)
	case change.AlreadyStaged:
		return fmt.Sprintf("generation %d was staged before; it is tried %s", d.Generation, when)
	case change.Withdrawn:
		return fmt.Sprintf("what was staged is withdrawn; generation %d stays", d.Generation)
	case change.WouldGoLive:
		return "these changes would go live"
	case change.WouldStage:
		return "these changes would be staged for the next boot"
	case change.WouldWithdraw:
		return fmt.Sprintf("what is staged would be withdrawn; generation %d would stay", d.Generation)
	case change.InStep:
	}
	return fmt.Sprintf("nothing to do; generation %d is what is wanted", d.Generation)
}
