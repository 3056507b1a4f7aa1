package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// ErrRuns says that a program is running already, as the unit that was asked for.
var ErrRuns = errors.New("it is running already")

// Program is one that systemd runs once, as a unit of its own: with all of root's rights, outside of whatever confines the
// process that asks for it, and longer than that lives where need be.
type Program struct {
	// Unit is the unit's name. It makes the program run once at a time: "powernode-agent-finish.service".
	Unit string
	// Description is what people see of it.
	Description string
	// Args are the program's absolute path and its arguments, which systemd takes as they are.
	Args []string
	// Output is the absolute path of the file that takes what it prints, and is made anew, for root alone; "" is the journal,
	// which has its errors in any case.
	Output string
}

// RunOnce has systemd run a program, and waits for its end, at most the time given: after that it goes on alone, and the error wraps
// context.DeadlineExceeded. It returns the program's exit status; one that ended by a signal, or never began, is an
// error. Where systemd doesn't run the error wraps ErrNone, where the program runs already ErrRuns.
func (m Manager) RunOnce(ctx context.Context, p Program, within time.Duration) (status int, err error) {
	outcome := []Outcome{{Unit: p.Unit, Result: JobUnfinished}}
	var end UnitState
	err = m.connected(ctx, within, func(ctx context.Context, conn *dbus.Conn) error {
		manager := conn.Object(busName, managerPath)
		signals := make(chan *dbus.Signal, 64)
		conn.Signal(signals)
		defer conn.RemoveSignal(signals)
		if err := manager.CallWithContext(ctx, managerIface+".Subscribe", 0).Err; err != nil {
			return fmt.Errorf("ask systemd to tell of jobs: %w", err)
		}
		// An earlier one that failed, and that nobody waited for, still has the name.
		forgetUnit(ctx, manager, p.Unit)
		if err := p.clear(ctx, conn); err != nil {
			return err
		}
		var job dbus.ObjectPath
		err := manager.CallWithContext(ctx, managerIface+".StartTransientUnit", 0, p.Unit, "fail", p.settings(), []auxiliary{}).Store(&job)
		if refused, ok := errors.AsType[dbus.Error](err); ok && refused.Name == busName+".UnitExists" {
			return ErrRuns
		}
		if err != nil {
			return err
		}
		await(ctx, signals, map[dbus.ObjectPath]int{job: 0}, outcome)
		if outcome[0].Result != "failed" {
			return ctx.Err()
		}
		if end, err = unitState(ctx, conn, p.Unit); err != nil {
			return err
		}
		forgetUnit(ctx, manager, p.Unit)
		return nil
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("have systemd run %s: %w", p.Unit, err)
	case outcome[0].Done():
		return 0, nil
	case end.Result == "exit-code" && end.ExitStatus != 0:
		return int(end.ExitStatus), nil
	}
	return 0, fmt.Errorf("have systemd run %s: its job is %s %s", p.Unit, outcome[0].Result, end.Result)
}

// clear removes what an earlier one has printed: systemd before 248 truncates no file. It keeps its hands off where that runs still.
func (p Program) clear(ctx context.Context, conn *dbus.Conn) error {
	if p.Output == "" {
		return nil
	}
	// Whatever else can't be found out is found out by the start.
	if u, err := unitState(ctx, conn, p.Unit); err == nil && slices.Contains([]string{"activating", "active", "deactivating", "reloading"}, u.Active) {
		return ErrRuns
	}
	if err := os.Remove(p.Output); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Interrupt sends SIGTERM to the main process of a unit, which may go on: systemd does nothing more about it. A unit that doesn't run is no
// error.
func (m Manager) Interrupt(ctx context.Context, unit string) error {
	return m.ask(ctx, func(ctx context.Context, manager dbus.BusObject) error {
		err := manager.CallWithContext(ctx, managerIface+".KillUnit", 0, unit, "main", int32(unix.SIGTERM)).Err
		if refused, ok := errors.AsType[dbus.Error](err); ok && (refused.Name == busName+".NoSuchUnit" || refused.Name == busName+".NoSuchProcess") {
			return nil
		}
		if err != nil {
			return fmt.Errorf("have systemd interrupt %s: %w", unit, err)
		}
		return nil
	})
}

// forgetUnit has systemd forget that a unit failed; it forgets a transient one as a whole then.
func forgetUnit(ctx context.Context, manager dbus.BusObject, unit string) {
	// One that it doesn't know is an error, and as it should be.
	_ = manager.CallWithContext(ctx, managerIface+".ResetFailedUnit", 0, unit).Err
}

// auxiliary is an element of what StartTransientUnit takes at its end: a(sa(sv)), units that come along.
type auxiliary struct {
	Name       string
	Properties []setting
}

// command is an element of ExecStart, a(sasb): the program, its arguments with its own name, and whether its failure is none.
type command struct {
	Path   string
	Args   []string
	Ignore bool
}

// settings are the unit's properties (org.freedesktop.systemd1(5)), all of them known to systemd 236, or earlier. What isn't said is as in a unit file: no sandbox, no limit to how
// long it takes.
func (p Program) settings() []setting {
	args := make([]string, len(p.Args))
	for i, a := range p.Args {
		args[i] = strings.ReplaceAll(a, "$", "$$") // else systemd puts variables in their places
	}
	s := []setting{
		{"Description", dbus.MakeVariant(p.Description)},
		{"Type", dbus.MakeVariant("oneshot")},
		{"ExecStart", dbus.MakeVariant([]command{{Path: p.Args[0], Args: args}})},
		{"UMask", dbus.MakeVariant(uint32(0o077))},
		{"OOMScoreAdjust", dbus.MakeVariant(int32(-500))},
	}
	if p.Output != "" {
		s = append(s, setting{"StandardOutputFile", dbus.MakeVariant(p.Output)}, setting{"StandardError", dbus.MakeVariant("journal")})
	}
	return s
}
