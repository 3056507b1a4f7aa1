package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// action is how a stay in the recovery environment ends.
type action string

const (
	retryBoot    action = "retry"
	continueBoot action = "continue"
	rebootNow    action = "reboot"
	powerOff     action = "poweroff"
)

// The pace of the recovery environment.
const (
	// retryFirst doubles with every automatic retry up to retryMost.
	retryFirst = 15 * time.Second
	retryMost  = 5 * time.Minute
	// probeEvery is how often the platform is asked for another assignment, probeTime how long.
	probeEvery = 10 * time.Second
	probeTime  = 30 * time.Second
	// lastResort is the number of automatic retries after which the machine is restarted: what is stuck
	// may be the kernel. A person at the console puts it off by presence.
	lastResort = 24
	presence   = 15 * time.Minute
)

// recovery is the environment in which a machine waits that can't be booted: it says why, keeps
// trying, and takes commands.
type recovery struct {
	voice *voice
	// lines are what a person types.
	lines <-chan string
	// cause is why the boot stopped, a *StageError where it was a stage's.
	cause error
	// rounds is how many automatic retries came before this stay.
	rounds int
	// facts print what is known: the node, its network, the journal of the boot.
	facts map[string]func(w io.Writer)
	// probe asks the platform whether the node is to run something else now; nil where nobody can be
	// asked.
	probe func(ctx context.Context) (changed bool, err error)
	// shell gives the console to a shell until it ends; nil where the trust policy doesn't allow it.
	shell func() error

	// last is when a person last typed, the zero time for never.
	last time.Time
}

// pause returns how long to wait before automatic retry number n, from 0.
func pause(n int) time.Duration {
	if n >= 10 {
		return retryMost
	}
	return min(retryFirst<<n, retryMost)
}

// isBreak reports whether a person asked for this stay.
func (r *recovery) isBreak() bool { return errors.Is(r.cause, errBreak) }

// run waits until there is a reason to go on. A break waits for a person; after a failure the boot is
// tried again by itself, at the latest after some minutes, and at once when the platform
// assigns something else.
func (r *recovery) run(ctx context.Context) action {
	r.explain()
	var again, ask <-chan time.Time
	if !r.isBreak() {
		again = time.After(pause(r.rounds))
		if r.probe != nil {
			ask = time.After(probeEvery)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	answers, asking := make(chan bool, 1), false
	defer func() {
		// The boot that goes on asks by the same client.
		if cancel(); asking {
			<-answers
		}
	}()
	r.prompt()
	for {
		select {
		case <-ctx.Done():
			return rebootNow
		case <-again:
			if r.rounds >= lastResort && time.Since(r.last) > presence {
				r.interject("%d retries didn't help; the machine is restarted", r.rounds)
				return rebootNow
			}
			r.interject("trying again")
			return retryBoot
		case <-ask:
			ask, asking = nil, true
			go r.ask(ctx, answers)
		case changed := <-answers:
			asking = false
			if changed {
				r.interject("the platform assigns something else now")
				return retryBoot
			}
			ask = time.After(probeEvery)
		case line := <-r.lines:
			r.last = time.Now()
			if act, done := r.command(line); done {
				r.voice.say("recovery: told to %s", act)
				return act
			}
			r.prompt()
		}
	}
}

// ask answers false for a platform that can't be asked: the next retry will say why.
func (r *recovery) ask(ctx context.Context, answers chan<- bool) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	changed := false
	_, err := guarded(func() (_ string, err error) {
		changed, err = r.probe(ctx)
		return "", err
	})
	answers <- changed && err == nil
}

// explain says what a person at the console needs to know first.
func (r *recovery) explain() {
	if r.isBreak() {
		r.voice.say("stopped before stage %s, as the kernel command line says; type continue, or help", stageOf(r.cause))
		return
	}
	r.voice.say("This machine can't boot: %v.", r.cause)
	if hint := fault.HintOf(r.cause); hint != "" {
		r.voice.say("What to do: %s.", hint)
	}
	next := "tries again by itself in " + pause(r.rounds).String()
	if r.rounds >= lastResort {
		next = "is restarted in " + pause(r.rounds).String()
	}
	if r.probe != nil {
		next += ", or goes on as soon as the platform assigns something else"
	}
	r.voice.say("It %s. Type help for what can be done here.", next)
	for _, name := range []string{"node", "network"} {
		r.print(name)
	}
}

func stageOf(err error) string {
	if at, ok := errors.AsType[*StageError](err); ok {
		return at.Stage
	}
	return ""
}

const prompt = "recovery> "

func (r *recovery) prompt() { fmt.Fprint(r.voice.w, prompt) }

// interject says something that nobody asked for, on a line of its own.
func (r *recovery) interject(format string, args ...any) {
	fmt.Fprintln(r.voice.w)
	r.voice.say("recovery: "+format, args...)
}

func (r *recovery) print(name string) {
	if show, ok := r.facts[name]; ok {
		_, err := guarded(func() (string, error) { show(r.voice.w); return "", nil })
		if err != nil {
			r.voice.say("recovery: show the %s: %v", name, err)
		}
	}
}

// commands are what can be typed, in the order of the help.
var commands = []struct{ name, help string }{
	{"help", "this list"},
	{"status", "why the boot stopped, and what to do"},
	{"node", "who this machine is"},
	{"network", "its addresses"},
	{"journal", "what the boot said so far"},
	{"retry", "try again now"},
	{"continue", "go on, after powernode.break"},
	{"shell", "a shell, where the trust policy allows one"},
	{"reboot", "restart the machine"},
	{"poweroff", "switch it off"},
}

// command does what was typed; done is true where that ends the stay.
func (r *recovery) command(line string) (act action, done bool) {
	out := func(format string, args ...any) {
		fmt.Fprintln(r.voice.w, fault.OneLine(fmt.Sprintf(format, args...)))
	}
	switch name := strings.ToLower(strings.TrimSpace(line)); name {
	case "":
	case "help", "?":
		for _, c := range commands {
			out("  %-9s %s", c.name, c.help)
		}
	case "status":
		out("%v", r.cause)
		if hint := fault.HintOf(r.cause); hint != "" {
			out("what to do: %s", hint)
		}
		out("automatic retries so far: %d", r.rounds)
	case "node", "network", "journal":
		r.print(name)
	case "retry":
		return retryBoot, true
	case "continue":
		if r.isBreak() {
			return continueBoot, true
		}
		out("there is no break to go on from; type retry")
	case "reboot":
		return rebootNow, true
	case "poweroff":
		return powerOff, true
	case "shell":
		if r.shell == nil {
			out("the trust policy of this machine allows no shell here (recovery_shell)")
		} else if err := r.shell(); err != nil {
			out("shell: %v", err)
		}
	default:
		out("%.40q isn't known; type help", name)
	}
	return "", false
}
