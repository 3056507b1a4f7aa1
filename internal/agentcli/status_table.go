package agentcli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

func (d statusDoc) table(w io.Writer) error {
	step := "in step"
	switch {
	case len(d.Mounts) == 0:
		step = "not mounted"
	case !d.InStep:
		step = "out of step"
	}
	pairs := [][2]string{
		{"status", step},
		{"node", d.InstanceID},
		{"generation", fmt.Sprint(d.Generation)},
		{"root digest", d.RootDigest.String()},
		{"integrity level", string(d.Level)},
	}
	if d.RootDigest.IsZero() {
		pairs[3][1] = "none"
	}
	if !d.ExpectedRootDigest.IsZero() {
		same := "the same"
		if d.ExpectedRootDigest != d.RootDigest {
			same = d.ExpectedRootDigest.String()
		}
		pairs = append(pairs, [2]string{"platform computed", same})
	}
	pairs = append(pairs, d.mountRows()...)
	pairs = append(pairs, d.deltaRows()...)
	pairs = append(pairs, d.credentialRows()...)
	pairs = append(pairs, d.pendingRows()...)
	pairs = append(pairs, d.driftRows()...)
	pairs = append(pairs, d.trialRows()...)
	if c := d.Checked; c != nil && len(d.Damage) == 0 {
		pairs = append(pairs, [2]string{"checked", fmt.Sprintf("%s whole in %s, nothing is damaged", cli.Count(c.Modules, "module"), time.Duration(c.Millis)*time.Millisecond)})
	}
	for _, r := range d.Reasons {
		pairs = append(pairs, [2]string{"because", r})
	}
	for _, r := range d.Remarks {
		pairs = append(pairs, [2]string{"remark", r})
	}
	if err := cli.Pairs(w, pairs); err != nil {
		return err
	}
	for _, t := range d.tables() {
		if len(t.rows) == 0 {
			continue
		}
		fmt.Fprintln(w)
		if err := cli.Rows(w, t.header, t.rows); err != nil {
			return err
		}
	}
	if d.MoreProcesses > 0 {
		fmt.Fprintf(w, "and %d more\n", d.MoreProcesses)
	}
	return nil
}

func (d statusDoc) credentialRows() [][2]string { return d.Credentials.rows(false) }

// mountRows are the lines about the directories that show another root than "/" itself, one for each root.
func (d statusDoc) mountRows() [][2]string {
	if len(d.Mounts) < 2 {
		return nil
	}
	var rows [][2]string
	at := make(map[fsverity.Digest]int)
	for _, m := range d.Mounts {
		i, known := at[m.RootDigest]
		if known {
			rows[i][1] += ", " + m.Path
			continue
		}
		what := "something else"
		if !m.RootDigest.IsZero() {
			what = "root " + cli.ShortDigest(m.RootDigest.String())
		}
		if m.Generation != 0 {
			what += fmt.Sprintf(" (generation %d)", m.Generation)
		}
		at[m.RootDigest] = len(rows)
		rows = append(rows, [2]string{"mounted", what + ": " + m.Path})
	}
	return rows
}

// deltaRows are the lines about the writable layer.
func (d statusDoc) deltaRows() [][2]string {
	var rows [][2]string
	if u := d.Upper; u != nil {
		rows = append(rows, [2]string{"writable layer", fmt.Sprintf("%s of %s, %d %% full", cli.Bytes(u.UsedBytes), cli.Bytes(u.TotalBytes), u.Percent)})
		if u.Warning != "" {
			rows = append(rows, [2]string{"warning", u.Warning})
		}
	}
	l := d.Delta
	if l == nil {
		return rows
	}
	more := ""
	if l.More {
		more = "more than "
	}
	rows = append(rows, [2]string{"changed here", fmt.Sprintf("%s%s, %s", more, cli.Count(l.Files, "file"), cli.Bytes(l.Bytes))})
	for i, c := range l.Conflicts {
		if i == mostRows {
			rows = append(rows, [2]string{"conflict", fmt.Sprintf("and %d more", len(l.Conflicts)+l.MoreConflicts-mostRows)})
			break
		}
		rows = append(rows, [2]string{"conflict", c.String()})
	}
	return rows
}

// statusTable is a table below the lines.
type statusTable struct {
	header []string
	rows   [][]string
}

func (d statusDoc) tables() []statusTable {
	modules := statusTable{header: []string{"MODULE", "VERSION", "ORIGIN", "PRIORITY", "SEAL", "MANIFEST"}}
	for _, m := range d.Modules {
		modules.rows = append(modules.rows, []string{m.Name, m.Version, string(m.Origin), fmt.Sprint(m.EffectivePriority), cli.ShortDigest(m.Seal.String()), cli.ShortDigest(m.ManifestDigest)})
	}
	services := statusTable{header: []string{"SERVICE", "MODULE", "STATE", "HEALTH", "PORTS"}}
	for _, s := range d.Services {
		state, health := "-", "-"
		if s.Active != "" {
			state = s.Active + " (" + s.Sub + ")"
		}
		if s.Health != "" {
			health = string(s.Health)
		}
		services.rows = append(services.rows, []string{s.name(), s.Module, state, health, portsOf(s.Ports)})
	}
	processes := statusTable{header: []string{"PROCESS", "PID", "UNIT", "USES WHAT WAS REPLACED"}}
	for _, p := range d.Processes {
		uses := make([]string, len(p.Uses))
		for i, u := range p.Uses {
			uses[i] = u.Path
		}
		if p.More > 0 {
			uses = append(uses, fmt.Sprintf("and %d more", p.More))
		}
		unit := p.Unit
		if unit == "" {
			unit = "-"
		}
		processes.rows = append(processes.rows, []string{p.Name, fmt.Sprint(p.PID), unit, strings.Join(uses, " ")})
	}
	return []statusTable{modules, services, processes}
}
