package agentcli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/services"
)

func initCommand(app *cli.App) *cobra.Command {
	actions := make([]string, 0, len(services.Actions()))
	for _, a := range services.Actions() {
		actions = append(actions, string(a))
	}
	control := services.Control{Systemd: systemd.Manager{}, Run: runRoot, Logs: services.Journal}
	cmd := &cobra.Command{
		Use:   "init MODULE " + strings.Join(actions, "|"),
		Short: "Start, stop, restart or reload the services of a module, or show them",
		Long: `Have systemd start, stop, restart or reload the services of a module, in the order of their
dependencies, wait until it is done, and show how each is then. Of one that failed the last lines of its log are shown.
A service that can't reload is restarted instead.

What a module's services may do, and what follows from their health checks, is in docs/services.md. The exit code is 4
when something isn't as it was asked for, when a service of status doesn't run or isn't healthy, and where systemd doesn't
run.`,
		Example: `  powernode-agent init nginx status
  powernode-agent init nginx restart --output json`,
		Args: cobra.ExactArgs(2),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return actions, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runInit(cmd.Context(), app, control, args[0], args[1])
		},
	}
	cmd.Flags().DurationVar(&control.Within, "wait", 3*time.Minute, "how long to wait for systemd")
	cmd.Flags().StringVar(&control.Run, "run", control.Run, "the directory /run, where the boot left which services there are")
	_ = cmd.Flags().MarkHidden("run")
	cmd.Flags().StringVar(&control.Only, "unit", "", "of the module's services only the one whose unit this is")
	return cmd
}

// runRoot is where what must not outlive the boot lies.
const runRoot = "/run"

func runInit(ctx context.Context, app *cli.App, control services.Control, name, action string) error {
	if !slices.Contains(services.Actions(), services.Action(action)) {
		return fault.New(fault.Refuse, fault.Input, "use start, stop, restart, reload or status", "unknown action %.40q", action)
	}
	if control.Run != runRoot {
		control.Systemd = systemd.Manager{Run: control.Run}
	}
	report, err := control.Do(ctx, name, services.Action(action))
	if err != nil {
		return err
	}
	if err := app.Print(report, func(w io.Writer) error { return initTable(w, report) }); err != nil {
		return err
	}
	if !report.OK {
		return cli.ExitStatus(cli.ExitService)
	}
	return nil
}

func initTable(w io.Writer, r services.Report) error {
	header := []string{"SERVICE", "STATE", "SINCE", "HEALTH", "PORTS", "UNIT"}
	if r.Action != services.ActionStatus {
		header = slices.Insert(header, 1, strings.ToUpper(string(r.Action)))
	}
	rows := make([][]string, len(r.Services))
	for i, s := range r.Services {
		row := []string{s.Service, stateOf(s), "-", "-", portsOf(s.Ports), s.Unit}
		if s.Service == "" {
			row[0] = "(init)"
		}
		if !s.Since.IsZero() {
			row[2] = s.Since.Format(time.RFC3339)
		}
		if s.Health != nil {
			row[3] = string(s.Health.State)
		}
		if r.Action != services.ActionStatus {
			row = slices.Insert(row, 1, s.Result)
		}
		rows[i] = row
	}
	if err := cli.Rows(w, header, rows); err != nil {
		return err
	}
	for _, s := range r.Services {
		said := s.Error
		if said == "" && s.Why != "" {
			said = "it ended with " + s.Why
		}
		if s.Health != nil && s.Health.State != services.HealthGood && s.Health.Detail != "" {
			said = strings.TrimPrefix(said+"; its health check: "+s.Health.Detail, "; ")
		}
		if said != "" {
			fmt.Fprintf(w, "\n%s: %s\n", s.Unit, cli.Printable(said))
		}
		for _, line := range s.Log {
			fmt.Fprintf(w, "  | %s\n", cli.Printable(line))
		}
	}
	for _, remark := range r.Remarks {
		fmt.Fprintf(w, "\nremark: %s\n", cli.Printable(remark))
	}
	return nil
}

func stateOf(s services.ServiceReport) string {
	if s.Load != "loaded" {
		return s.Load
	}
	return s.Active + " (" + s.Sub + ")"
}

func portsOf(ports []module.Port) string {
	if len(ports) == 0 {
		return "-"
	}
	out := make([]string, len(ports))
	for i, p := range ports {
		out[i] = fmt.Sprintf("%d/%s", p.Port, p.Protocol)
	}
	return strings.Join(out, " ")
}
