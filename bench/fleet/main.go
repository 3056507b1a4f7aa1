// Command fleet loads a platform with many simulated nodes and measures what it answers: `fleet fill` puts nodes with
// certificates on file, straight into the database, and `fleet run` is all of them at once. `fleet profile FILE serve …` is powernode-platform,
// with a profile of its processor time in FILE once it has ended.
//
// A simulated node has its own certificate and speaks the agent's own bytes over its own TLS 1.3 connections, which it keeps as the
// agent does: one for heartbeats, and one on which it waits for tasks. It does nothing else that an agent does, so that one machine has room
// for all of them beside the platform. bench/fleet.sh starts the platforms.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/platformcli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// command runs a command line.
func command(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("usage: fleet fill|run [FLAG]... (or fleet profile FILE serve [FLAG]...), see bench/fleet.sh")
	}
	switch args[0] {
	case "fill":
		return fillCommand(ctx, args[1:])
	case "run":
		return runCommand(ctx, args[1:], out)
	case "profile":
		return profileCommand(ctx, args[1:])
	}
	return fmt.Errorf("unknown command %q", args[0])
}

func fillCommand(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("fill", flag.ContinueOnError)
	var o fillOptions
	flags.StringVar(&o.Dir, "data", "", "the data directory of the platform that is to be")
	flags.StringVar(&o.Database, "database", "", "its PostgreSQL; none is SQLite")
	flags.StringVar(&o.SecretFile, "shared-secret-file", "", "the secret of several platforms")
	flags.IntVar(&o.Nodes, "nodes", 10_000, "how many nodes")
	to := flags.String("credentials", "", "the file that the nodes' certificates and keys are written to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := fill(ctx, o)
	if err != nil {
		return err
	}
	return c.write(*to)
}

// side is a platform of a run: its address and its process.
type side struct {
	host string
	pid  int
}

func runCommand(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	var o runOptions
	flags.Func("platform", "HOST:PORT,PID of a platform; once for each", func(s string) error {
		host, pid, _ := strings.Cut(s, ",")
		n, err := strconv.Atoi(pid)
		o.Platforms = append(o.Platforms, side{host, n})
		return err
	})
	flags.IntVar(&o.DatabasePID, "database-pid", 0, "the process of the database's server; its children count too")
	flags.StringVar(&o.Operator, "operator", "", "the operator's credential file")
	flags.IntVar(&o.Waiting, "waiting", 0, "how many nodes wait for tasks, too; 0 is as many as there are descriptors for")
	flags.DurationVar(&o.Every, "every", 30*time.Second, "the rhythm of each node's heartbeats")
	flags.DurationVar(&o.For, "for", 90*time.Second, "how long that rhythm is measured")
	flags.DurationVar(&o.Step, "step", 20*time.Second, "how long each higher rate is measured")
	flags.DurationVar(&o.Bound, "bound", 50*time.Millisecond, "the 99th percentile at which rates are raised no more")
	flags.Float64Var(&o.Tasks, "tasks", 5, "tasks per second that the operator asks for")
	rates := flags.String("rates", "", "further rates of all heartbeats per second, the lowest first")
	from := flags.String("credentials", "", "what fill has written")
	if err := flags.Parse(args); err != nil {
		return err
	}
	for _, s := range strings.FieldsFunc(*rates, func(c rune) bool { return c == ',' || c == ' ' }) {
		rate, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return err
		}
		o.Rates = append(o.Rates, rate)
	}
	var err error
	if o.Credentials, err = readCredentials(*from); err != nil {
		return err
	}
	return run(ctx, o, out)
}

func profileCommand(ctx context.Context, args []string) (err error) {
	if len(args) == 0 {
		return errors.New("profile: name a file")
	}
	f, err := os.Create(args[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	app := &cli.App{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Format: cli.Table, Getenv: os.Getenv}
	if code := app.Run(ctx, platformcli.New(app), args[1:]); code != 0 {
		return fmt.Errorf("the platform ended with %d", code)
	}
	return nil
}
