package agentcli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/event"
	"github.com/powernode/powernode-agent/internal/runtime/journal"
	"github.com/powernode/powernode-agent/internal/services"
)

// theAgent is who does what nobody asked for by name.
const theAgent = "powernode-agent"

// trail keeps audit records of what is done on the machine itself: in the journal, where there is one, and in the queue of events, which
// the service brings to the platform whoever has put them there.
type trail struct {
	stateDir string
	log      *slog.Logger
	// complain says once what can't be kept; nil says nothing.
	complain func(error)
}

// newTrail returns the trail of a command.
func newTrail(app *cli.App, stateDir string) *trail {
	t := &trail{stateDir: stateDir, log: slog.New(slog.DiscardHandler)}
	// What the journal doesn't take isn't shown to who runs the command.
	if h, err := journal.New(journal.Socket, theAgent, slog.NewTextHandler(io.Discard, nil)); err == nil {
		t.log = slog.New(h)
	}
	t.complain = func(err error) {
		fmt.Fprintln(app.Err, "warning: "+cli.Printable("no audit record of this is kept for the platform: "+err.Error()))
	}
	return t
}

// put keeps a record. Where there is no directory of record there is no node, and nothing to be kept of it.
func (t *trail) put(a event.Audit) {
	t.log.Info("audit", "who", a.Who, "task", a.Task, "command", a.Command, "result", a.Result)
	if _, err := os.Stat(t.stateDir); err != nil {
		return
	}
	queue, err := event.Open(filepath.Join(t.stateDir, eventsDir), event.Options{})
	if err == nil {
		err = errors.Join(queue.Put(a.Event()), queue.Close())
	}
	if err != nil && t.complain != nil {
		t.complain(err)
		t.complain = nil
	}
}

// forTaskKey marks the context of a command that runs for a task or for the service, which keeps the record of it.
type forTaskKey struct{}

func forTask(ctx context.Context) context.Context { return context.WithValue(ctx, forTaskKey{}, true) }

// audited has a record kept of each run of a command by a person's hand: one when it begins, and one with what came of it.
func audited(app *cli.App, cmd *cobra.Command) *cobra.Command {
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Context().Value(forTaskKey{}) != nil || onlyLooks(cmd, args) {
			return run(cmd, args)
		}
		dir := boot.StateDir(boot.PersistInRoot)
		if f := cmd.Flags().Lookup("state"); f != nil {
			dir = f.Value.String()
		}
		t := newTrail(app, dir)
		a := event.Audit{Who: whoRuns(app.Getenv), Command: commandLine(cmd, args), Result: "begun", At: time.Now()}
		t.put(a)
		err := run(cmd, args)
		a.Result, a.Failed, a.At = runResult(err), err != nil, time.Now()
		t.put(a)
		return err
	}
	return cmd
}

// onlyLooks tells whether a command changes nothing.
func onlyLooks(cmd *cobra.Command, args []string) bool {
	f := cmd.Flags().Lookup("dry-run")
	return f != nil && f.Value.String() == "true" || cmd.Name() == "init" && slices.Contains(args, string(services.ActionStatus))
}

// recorded are the flags whose values are in a record. Of others only bare ones are named: a value may be a secret, or a path of
// no meaning to anybody else.
var recorded = []string{"confirm", "local-changes", "keep", "reboot", "priority", "unit", "instance-id"}

// commandLine returns what was asked for, in the words of the command line.
func commandLine(cmd *cobra.Command, args []string) string {
	words := []string{cmd.Name()}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		switch {
		case f.Value.Type() == "bool" && f.Value.String() == "true" && f.Name != "quiet":
			words = append(words, "--"+f.Name)
		case slices.Contains(recorded, f.Name):
			words = append(words, "--"+f.Name+"="+f.Value.String())
		}
	})
	return strings.Join(append(words, args...), " ")
}

// runResult says what a command came to.
func runResult(err error) string {
	status, ok := errors.AsType[cli.ExitStatus](err)
	switch {
	case err == nil:
		return "complete"
	case ok && int(status) == cli.ExitPartial:
		return "done in part, or taken back"
	case ok:
		return "failed: exit code " + strconv.Itoa(int(status))
	}
	return "failed: " + err.Error()
}

// noLoginUID is what the kernel says of processes that nobody has logged in for (proc_pid_loginuid(5)).
const noLoginUID = "4294967295"

// whoRuns names the user that has asked for a command: who has logged in, whatever they became since; else who called sudo, else who it is.
func whoRuns(getenv func(string) string) string {
	text, err := os.ReadFile("/proc/self/loginuid")
	uid := strings.TrimSpace(string(text))
	if err == nil && uid != "" && uid != noLoginUID {
		return "user " + userName(uid)
	}
	if name := getenv("SUDO_USER"); name != "" && len(name) <= 64 {
		return "user " + name + " (by sudo)"
	}
	return "user " + userName(strconv.Itoa(os.Getuid()))
}

func userName(uid string) string {
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return uid
}
