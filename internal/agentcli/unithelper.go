package agentcli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/services"
)

// unitHelperCommand is no command for people: the helper units of a module's services run it.
func unitHelperCommand(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use:    services.HelperCommand,
		Short:  "Check the health of a module's service, or look up whom it may connect to",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(healthHelper(app), recordHelper(app), waitHelper(), egressHelper(app))
	return cmd
}

// helperFlags are those of every helper.
type helperFlags struct {
	unit   string
	policy services.HealthPolicy
}

func (f *helperFlags) add(cmd *cobra.Command) {
	cmd.Args = cobra.NoArgs
	cmd.Flags().StringVar(&f.unit, "unit", "", "the service's unit")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if services.UnitModule(f.unit) == "" {
			return fault.New(fault.Refuse, fault.Input, "", "--unit %.80q is not the unit of a module's service", f.unit)
		}
		return nil
	}
}

func (f *helperFlags) addPolicy(cmd *cobra.Command) {
	f.add(cmd)
	cmd.Flags().DurationVar(&f.policy.InitialDelay, "initial-delay", 0, "how long a service that started may be without good health")
	cmd.Flags().BoolVar(&f.policy.Restart, "restart", false, "restart it when it is unhealthy")
}

func (f *helperFlags) checker() services.Checker {
	return services.Checker{Systemd: systemd.Manager{}, Run: runRoot, Unit: f.unit, Policy: f.policy, Now: time.Now}
}

func healthHelper(app *cli.App) *cobra.Command {
	var f helperFlags
	var target services.Target
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: services.HelperHealth, Short: "Check the health of a service once",
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Only what a unit may ask for, whoever called.
			parsed, err := services.ParseTarget(target.Method, target.Endpoint, nil)
			if err != nil {
				return err
			}
			return said(app)(f.checker().Check(cmd.Context(), parsed, timeout))
		},
	}
	f.addPolicy(cmd)
	cmd.Flags().StringVar(&target.Method, "method", "GET", "GET, POST, PUT or TCP")
	cmd.Flags().StringVar(&target.Endpoint, "endpoint", "", "a URL, or host:port, on this machine")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "how long it may take")
	return cmd
}

func recordHelper(app *cli.App) *cobra.Command {
	var f helperFlags
	cmd := &cobra.Command{
		Use: services.HelperRecord, Short: "Write down how a command that checks the health of a service ended",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return said(app)(f.checker().Record(cmd.Context(), app.Getenv("SERVICE_RESULT"), app.Getenv("EXIT_CODE"), app.Getenv("EXIT_STATUS")))
		},
	}
	f.addPolicy(cmd)
	return cmd
}

// said prints what a check found that isn't good, for the journal of its unit.
func said(app *cli.App) func(services.Health, error) error {
	return func(h services.Health, err error) error {
		if err == nil && h.State != services.HealthGood {
			fmt.Fprintln(app.Out, cli.Printable(fmt.Sprintf("%s is %s: %s", h.Unit, h.State, h.Detail)))
		}
		return err
	}
}

func waitHelper() *cobra.Command {
	var f helperFlags
	cmd := &cobra.Command{
		Use: services.HelperWait, Short: "Wait until a service was found healthy",
		// The unit says for how long.
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := f.checker().Wait(cmd.Context(), 250*time.Millisecond)
			if cmd.Context().Err() != nil {
				// To end by the signal is what systemd takes for stopped: not failed, and not done either.
				signal.Reset(unix.SIGTERM)
				err = errors.Join(err, unix.Kill(os.Getpid(), unix.SIGTERM))
				time.Sleep(time.Second) // it comes at once
			}
			return err
		},
	}
	f.add(cmd)
	return cmd
}

func egressHelper(app *cli.App) *cobra.Command {
	var f helperFlags
	var addresses, names []string
	cmd := &cobra.Command{
		Use: services.HelperEgress, Short: "Look up the names that a service may connect to",
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := services.Refresher{
				Resolver: net.DefaultResolver, Peers: systemd.Manager{}, Run: runRoot, ResolvConf: "/etc/resolv.conf",
				Unit: f.unit, Names: names, Now: time.Now,
			}
			for _, text := range addresses {
				a, err := netip.ParseAddr(text)
				if err != nil {
					return fault.New(fault.Refuse, fault.Input, "", "--address: %w", err)
				}
				r.Addresses = append(r.Addresses, a)
			}
			return refreshed(cmd.Context(), app, r)
		},
	}
	f.add(cmd)
	cmd.Flags().StringArrayVar(&addresses, "address", nil, "an address that counts always")
	cmd.Flags().StringArrayVar(&names, "name", nil, "a name to look up")
	return cmd
}

func refreshed(ctx context.Context, app *cli.App, r services.Refresher) error {
	e, err := r.Refresh(ctx)
	for name, why := range e.Failed {
		fmt.Fprintln(app.Out, cli.Printable(fmt.Sprintf("%s can't be looked up: %s", name, why)))
	}
	if remark := e.Remark(); remark != "" {
		fmt.Fprintln(app.Out, cli.Printable(remark))
	}
	return err
}
