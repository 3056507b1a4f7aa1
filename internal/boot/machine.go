package boot

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/persist"
)

// machine is a boot as the machine's first process, or on behalf of it in another's initramfs: it doesn't
// end before there is a root, and it is the one that restarts the machine.
type machine struct {
	*boot
	terminal *terminal // nil where there is no console to read from
	// rounds is how many automatic retries there were since a stage got further.
	rounds int
	last   string

	// switchTo hands over. As the first process it returns only with an error. down restarts the machine or switches it off.
	switchTo func() error
	down     func(act action)
	// console opens the console to read from, and steady settles what the kernel does by itself.
	console func() *terminal
	steady  func()

	// typed is when a person last typed something.
	typed time.Time
}

// anotherRound is the number of automatic retries, a quarter of an hour, after which generations whose attempts
// are used up get new ones if there is nothing else to boot.
const anotherRound = 7

// handOverMost is more than a hand-over takes, syncPatience how long the end of the machine waits for a disk that may
// never answer again.
const (
	handOverMost = 5 * time.Minute
	syncPatience = 20 * time.Second
	// halfwayPause is for a person to read why.
	halfwayPause = 10 * time.Second
)

func newMachine(b *boot) *machine {
	b.triesAgain = true
	m := &machine{boot: b, switchTo: b.handOver, down: takeDown, console: openTerminal, steady: steadyKernel}
	m.course.stuck = m.giveUp
	m.claims.attend = m.attend
	if b.mode == Sysroot {
		// The kernel's settings and the key to restart are of the first process there.
		m.switchTo, m.steady = b.leaveRoot, func() {}
	}
	return m
}

// giveUp restarts a machine on which something hangs that no context ends, such as a disk that never answers.
func (m *machine) giveUp(what string) {
	m.voice.say("%s hangs; the machine is restarted", what)
	noted := make(chan struct{})
	go func() {
		m.failed(&StageError{what, fault.New(fault.Retry, fault.General, "look at the disk and its cables", "it hung")}, Ended)
		close(noted)
	}()
	select {
	case <-noted:
	case <-time.After(syncPatience): // it is the disk that hangs
	}
	m.down(rebootNow)
}

// run boots, and stays in the recovery environment between attempts. As the first process it returns only in
// tests, whose machines go on after down; else once there is a root, or where it was told to end.
func (m *machine) run(ctx context.Context) error {
	m.steady()
	from := 0
	for {
		err := m.attempt(ctx, from)
		if err == nil {
			return nil
		}
		if errors.Is(err, errSwitched) {
			// There is no initramfs any more to recover in. The next boot counts this as a system that wasn't heard of.
			m.failed(err, HandedOver)
			m.voice.say("%v; the machine is restarted in %s", err, halfwayPause)
			time.Sleep(halfwayPause)
			m.down(rebootNow)
			return err
		}
		if ctx.Err() != nil {
			m.failed(err, Ended)
			if m.mode == Sysroot {
				return err // whoever told it to end says what follows
			}
			m.voice.say("interrupted; the machine is restarted")
			m.down(rebootNow)
			return err
		}
		var act action
		if told, ok := errors.AsType[*told](err); ok {
			act = told.act
		} else {
			act = m.recover(ctx, err)
		}
		if ctx.Err() != nil && m.mode == Sysroot {
			m.failed(err, Ended)
			return errors.Join(ctx.Err(), err)
		}
		switch act {
		case continueBoot:
			from = m.course.index(stageOf(err))
		case retryBoot:
			m.undo()
			from = m.resumeAt(err)
		default:
			m.failed(err, Ended)
			m.down(act)
			return err
		}
	}
}

// attempt runs the stages from one on and hands over. It returns why that didn't work, nil where it did.
func (m *machine) attempt(ctx context.Context, from int) (err error) {
	_, err = guarded(func() (string, error) {
		if err := m.course.run(ctx, from); err != nil {
			return "", err
		}
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if m.terminal != nil {
			m.terminal.end()
		}
		m.course.watched(handOverName, handOverMost, func() { err = m.switchTo() })
		return "", err
	})
	if err != nil && !errors.Is(err, errBreak) && !errors.Is(err, errSwitched) {
		m.undo()
	}
	return err
}

// resumeAt returns the stage to go on from after err: the one that failed, and where that depends on
// what the disk and the platform say, the one that asks them.
func (m *machine) resumeAt(err error) int {
	again := "identify"
	if m.persist.Kind == persist.Memory {
		again = "persist" // the disk may have come
	}
	return min(m.course.index(stageOf(err)), m.course.index(again))
}

// recover waits in the recovery environment until there is a reason to go on.
func (m *machine) recover(ctx context.Context, cause error) action {
	m.failed(cause, InRecovery)
	// The reason may have another time or address in it at each attempt: what counts is how far it came.
	if at := stageOf(cause); m.last == "" || m.place(at) > m.place(m.last) {
		m.rounds, m.last = 0, cmp.Or(at, handOverName)
	}
	r := m.environment(ctx, cause)
	r.probe = m.prober()
	act := r.run(ctx)
	m.typed = r.last
	m.rounds++
	m.patient = m.rounds >= anotherRound
	if act == retryBoot || act == continueBoot {
		m.voice.journal.change(func(d *Journal) { d.Outcome = UnderWay })
	}
	return act
}

// environment returns what takes a person's commands, from the console if there is one.
func (m *machine) environment(ctx context.Context, cause error) *recovery {
	if m.terminal == nil {
		m.terminal = m.console()
	}
	r := &recovery{
		voice: m.voice, cause: cause, rounds: m.rounds, last: m.typed,
		facts: map[string]func(io.Writer){"node": m.printNode, "network": m.printNetwork, "journal": m.printJournal},
	}
	if m.terminal != nil {
		m.terminal.begin()
		r.lines = m.terminal.lines
		if trust, err := m.loadTrust(); err == nil && trust.RecoveryShell {
			r.shell = func() error { return m.shell(ctx) }
		}
	}
	return r
}

// handOverName stands for what comes after the stages.
const handOverName = "the hand-over"

// place returns how far a boot came that failed at a stage, or after all of them.
func (m *machine) place(stage string) int {
	if stage == "" || stage == handOverName {
		return len(m.course.stages)
	}
	return m.course.index(stage)
}

// openTerminal opens the console for a person; nil where there is none. Its own descriptor is one
// that can be waited for, which the standard input isn't.
func openTerminal() *terminal {
	f, err := os.OpenFile(consolePath, os.O_RDONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil
	}
	return newTerminal(f)
}

// steadyKernel has Ctrl-Alt-Del interrupt this process instead of restarting the machine in the
// middle of a write, and a machine that dies of a defect in us restart, unless it was told otherwise.
func steadyKernel() {
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)
	// The kernel gathers randomness only while somebody waits for it (random(4)), which on a machine
	// without a source takes seconds: better while there are other things to do. unix.Getrandom would
	// hold up everybody else on a machine with one processor: it doesn't tell the scheduler that it waits.
	go func() {
		var b [1]byte
		_, _, _ = unix.Syscall(unix.SYS_GETRANDOM, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0)
	}()
	const path = "/proc/sys/kernel/panic"
	if now, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(now)) == "0" {
		_ = os.WriteFile(path, []byte("10\n"), 0o644)
	}
	debug.SetTraceback("all")
}

// takeDown ends the machine. What is on its disks is written first.
func takeDown(act action) {
	done := make(chan struct{})
	go func() { unix.Sync(); close(done) }()
	select {
	case <-done:
	case <-time.After(syncPatience):
	}
	how := unix.LINUX_REBOOT_CMD_RESTART
	if act == powerOff {
		how = unix.LINUX_REBOOT_CMD_POWER_OFF
	}
	_ = unix.Reboot(how)
	select {} // the kernel takes its time
}
