package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// consoleBuffer takes what is said from any goroutine.
type consoleBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (c *consoleBuffer) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

func (c *consoleBuffer) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}

var unsigned = &StageError{"verify", fault.New(fault.Refuse, fault.Verify, "sign it", "module x isn't signed")}

func newRecovery(w io.Writer, cause error) (*recovery, chan string) {
	lines := make(chan string)
	return &recovery{voice: newCourse(w).voice, cause: cause, lines: lines, facts: map[string]func(io.Writer){
		"node": func(w io.Writer) { show(w, "node n1") },
	}}, lines
}

func TestRecoverySaysWhyAndTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var console consoleBuffer
		r, _ := newRecovery(&console, unsigned)
		begun := time.Now()
		if act := r.run(t.Context()); act != retryBoot || time.Since(begun) != retryFirst {
			t.Errorf("%s after %s", act, time.Since(begun))
		}
		for _, words := range []string{"boot stage verify: module x isn't signed", "What to do: sign it", "tries again by itself in 15s", "node n1", "recovery> "} {
			if !strings.Contains(console.String(), words) {
				t.Errorf("the console doesn't say %q: %s", words, console.String())
			}
		}
	})
}

// TestRecoveryPace: retries come less and less often, and after many the machine is restarted, unless
// somebody is there.
func TestRecoveryPace(t *testing.T) {
	for n, want := range map[int]time.Duration{0: 15 * time.Second, 1: 30 * time.Second, 4: 4 * time.Minute, 5: retryMost, 9: retryMost, 10: retryMost, 1000: retryMost} {
		if pause(n) != want {
			t.Errorf("round %d waits %s", n, pause(n))
		}
	}
	for _, present := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r, lines := newRecovery(io.Discard, unsigned)
			r.rounds = lastResort
			if present {
				go func() { lines <- "status" }()
			}
			want := rebootNow
			if present {
				want = retryBoot
			}
			if act := r.run(t.Context()); act != want {
				t.Errorf("present %t: %s", present, act)
			}
		})
	}
}

// TestRecoveryAsksThePlatform: another assignment ends the stay at once; an outage doesn't.
func TestRecoveryAsksThePlatform(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newRecovery(io.Discard, unsigned)
		r.rounds = 6
		asked := 0
		r.probe = func(context.Context) (bool, error) {
			asked++
			switch asked {
			case 1:
				return true, errors.New("no answer")
			case 2:
				panic("a defect")
			}
			return asked == 4, nil
		}
		begun := time.Now()
		if act := r.run(t.Context()); act != retryBoot || asked != 4 || time.Since(begun) != 4*probeEvery {
			t.Errorf("%s after %d questions, %s", act, asked, time.Since(begun))
		}
	})
}

// TestRecoveryWaitsForNobody: a platform that doesn't answer and a person who says nothing don't
// keep the next retry back.
func TestRecoveryWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newRecovery(io.Discard, unsigned)
		r.rounds = 1
		r.probe = func(ctx context.Context) (bool, error) { <-ctx.Done(); return false, ctx.Err() }
		if act := r.run(t.Context()); act != retryBoot {
			t.Error(act)
		}
		synctest.Wait()
	})
}

func TestABreakWaitsForAPerson(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var console consoleBuffer
		r, lines := newRecovery(&console, &StageError{"mount", errBreak})
		r.probe = func(context.Context) (bool, error) { t.Error("the platform was asked"); return true, nil }
		go func() {
			time.Sleep(24 * time.Hour)
			lines <- " Continue "
		}()
		if act := r.run(t.Context()); act != continueBoot {
			t.Error(act)
		}
		if !strings.Contains(console.String(), "stopped before stage mount") {
			t.Error(console.String())
		}
	})
}

func TestRecoveryCommands(t *testing.T) {
	for line, want := range map[string]action{"retry": retryBoot, "reboot": rebootNow, "POWEROFF": powerOff} {
		r, _ := newRecovery(io.Discard, unsigned)
		if act, done := r.command(line); !done || act != want {
			t.Errorf("%s: %s, %t", line, act, done)
		}
	}
	for line, words := range map[string]string{
		"": "", "help": "poweroff", "status": "what to do: sign it", "node": "node n1", "network": "", "continue": "no break",
		"shell": "allows no shell", "rm -rf /": "isn't known", "\x1b[2J": `isn't known`,
	} {
		var console consoleBuffer
		r, _ := newRecovery(&console, unsigned)
		if act, done := r.command(line); done || !strings.Contains(console.String(), words) || strings.Contains(console.String(), "\x1b") {
			t.Errorf("%q: %s, %t, %q", line, act, done, console.String())
		}
	}
	r, _ := newRecovery(io.Discard, unsigned)
	ran := false
	r.shell = func() error { ran = true; return nil }
	if _, done := r.command("shell"); done || !ran {
		t.Error("the shell that is allowed isn't started")
	}
	help := map[string]bool{}
	for _, c := range commands {
		help[c.name] = c.help != ""
	}
	for _, name := range []string{"help", "status", "journal", "network", "node", "retry", "continue", "shell", "reboot", "poweroff"} {
		if !help[name] {
			t.Errorf("the help has no %s", name)
		}
	}
}

func TestTerminalReadsLines(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	term := newTerminal(in)
	term.begin()
	term.begin()
	fmt.Fprint(out, "sta")
	fmt.Fprintf(out, "tus\r\n%s\n", strings.Repeat("x", 5000))
	if got := <-term.lines; got != "status" {
		t.Errorf("%q", got)
	}
	if got := <-term.lines; got != "" {
		t.Errorf("after \\r: %q", got)
	}
	if got := <-term.lines; len(got) != typedMax {
		t.Errorf("%d characters", len(got))
	}
	// Somebody else has the console.
	term.end()
	term.end()
	fmt.Fprint(out, "for the shell\n")
	buf := make([]byte, 100)
	if n, err := readNow(in, buf); err != nil || string(buf[:n]) != "for the shell\n" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	term.begin()
	fmt.Fprint(out, "retry\n")
	if got := <-term.lines; got != "retry" {
		t.Errorf("%q", got)
	}
	// A line that nobody takes doesn't hold up the end, nor does an input that ends.
	fmt.Fprint(out, "unheard\n")
	out.Close()
	term.end()
}

func readNow(in *os.File, buf []byte) (int, error) {
	if err := in.SetReadDeadline(time.Time{}); err != nil {
		return 0, err
	}
	return in.Read(buf)
}

// fakeMachine is a machine whose stages do what the test says.
func fakeMachine(w io.Writer, stages ...Stage) (*machine, *[]action) {
	b := newBoot(Config{Console: w, Now: time.Now, Trust: "/nonexistent/trust.yaml"})
	b.course.stages = stages
	var downs []action
	m := newMachine(b)
	m.down = func(act action) { downs = append(downs, act) }
	m.console = func() *terminal { return nil }
	m.steady = func() {}
	return m, &downs
}

// TestAMachineGoesOnByItself: what fails is tried again from the stage that asks the disk, until it
// goes well, and then another root is booted in place.
func TestAMachineGoesOnByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ran []string
		fails := 2
		stage := func(name string) Stage {
			return Stage{name, time.Minute, func(context.Context) (string, error) {
				ran = append(ran, name)
				if name == "verify" && fails > 0 {
					if fails--; fails == 1 {
						panic("a defect")
					}
					return "", unsigned.Err
				}
				return "", nil
			}}
		}
		var console consoleBuffer
		m, _ := fakeMachine(&console, stage("prepare"), stage("persist"), stage("identify"), stage("verify"), stage("mount"))
		over := errors.New("handed over")
		ctx, cancel := context.WithCancel(t.Context())
		m.switchTo = func() error { ran = append(ran, "switch"); cancel(); return over }
		if err := m.run(ctx); !errors.Is(err, over) {
			t.Error(err)
		}
		if got, want := strings.Join(ran, " "), "prepare persist identify verify identify verify identify verify mount switch"; got != want {
			t.Errorf("ran %s", got)
		}
		if !strings.Contains(console.String(), "internal error: a defect") {
			t.Error(console.String())
		}
	})
}

// TestAMachineIsTakenDown by an interruption, and as the last resort; it never just ends.
func TestAMachineIsTakenDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		m, downs := fakeMachine(io.Discard, Stage{"persist", time.Minute, func(context.Context) (string, error) { runs++; return "", errors.New("no disk") }})
		_ = m.run(t.Context())
		if len(*downs) != 1 || (*downs)[0] != rebootNow || runs != lastResort+1 {
			t.Errorf("%v after %d runs", *downs, runs)
		}
		if j := m.voice.journal.snapshot(); j.Outcome != Ended || j.Stage != "persist" || j.Failure == "" || len(j.Stages) != runs {
			t.Errorf("journal %+v", j)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m, downs := fakeMachine(io.Discard, Stage{"fetch", time.Minute, func(ctx context.Context) (string, error) {
			cancel()
			return "", ctx.Err()
		}})
		_ = m.run(ctx)
		if len(*downs) != 1 || (*downs)[0] != rebootNow {
			t.Errorf("%v", *downs)
		}
	})
}

// TestABootForAnothersInitramfs recovers as a machine does, ends once there is a root, which stays, and leaves it
// to whoever interrupts it what follows.
func TestABootForAnothersInitramfs(t *testing.T) {
	foreign := func(w io.Writer, stage func(context.Context) (string, error)) (*machine, *[]action) {
		m, downs := fakeMachine(w, Stage{"identify", time.Minute, stage})
		m.mode = Sysroot
		return m, downs
	}
	synctest.Test(t, func(t *testing.T) {
		var console consoleBuffer
		fails := 2
		m, downs := foreign(&console, func(context.Context) (string, error) {
			if fails--; fails >= 0 {
				return "", unsigned.Err
			}
			return "", nil
		})
		m.switchTo = func() error { m.plan.unfit = map[uint64]string{1: "kept"}; return nil }
		begun := time.Now()
		if err := m.run(t.Context()); err != nil || len(*downs) != 0 || m.plan.unfit[1] != "kept" {
			t.Errorf("%v, %v, %v", err, *downs, m.plan.unfit)
		}
		if took := time.Since(begun); took < pause(0) || !strings.Contains(console.String(), "This machine can't boot: boot stage identify") {
			t.Errorf("after %s: %s", took, console.String())
		}
	})
	for name, during := range map[string]time.Duration{"in recovery": time.Second, "in a stage": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				m, downs := foreign(io.Discard, func(ctx context.Context) (string, error) {
					go func() { time.Sleep(during); cancel() }()
					if during == 0 {
						<-ctx.Done()
						return "", ctx.Err()
					}
					return "", unsigned.Err
				})
				if err := m.run(ctx); !errors.Is(err, context.Canceled) || stageOf(err) != "identify" || len(*downs) != 0 {
					t.Errorf("%v, %v", err, *downs)
				}
			})
		})
	}
	b := newBoot(Config{Sysroot: "/sysroot", Console: io.Discard, Now: time.Now})
	if m := newMachine(b); m.mode != Sysroot || m.course.stuck == nil {
		t.Errorf("%s", m.mode)
	}
	if inInitramfs("/proc") || inInitramfs("/nonexistent") {
		t.Error("a system that runs isn't an initramfs")
	}
}

// TestABreakKeepsWhatWasDone: going on from it runs the stage that it stopped before, and none again.
func TestABreakKeepsWhatWasDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ran []string
		stage := func(name string) Stage {
			return Stage{name, time.Minute, func(context.Context) (string, error) { ran = append(ran, name); return "", nil }}
		}
		m, _ := fakeMachine(io.Discard, stage("identify"), stage("compose"), stage("mount"))
		m.course.breakAt = "mount"
		m.plan.unfit = map[uint64]string{1: "kept"}
		in, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		fmt.Fprintln(out, "continue")
		out.Close()
		m.console = func() *terminal { return newTerminal(in) }
		ctx, cancel := context.WithCancel(t.Context())
		m.switchTo = func() error {
			if m.plan.unfit[1] != "kept" {
				t.Error("the plan is gone")
			}
			cancel()
			return errors.New("over")
		}
		_ = m.run(ctx)
		if got := strings.Join(ran, " "); got != "identify compose mount" {
			t.Errorf("ran %s", got)
		}
	})
}

// TestAStageThatHangs: what the kernel doesn't come back from restarts the machine.
func TestAStageThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		released := make(chan struct{})
		var console consoleBuffer
		m, _ := fakeMachine(&console, Stage{"mount", time.Minute, func(context.Context) (string, error) { <-released; return "", nil }})
		begun := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		var downs []action
		m.down = func(act action) {
			if downs = append(downs, act); len(downs) == 1 {
				cancel()
				close(released)
			}
		}
		_ = m.run(ctx)
		if len(downs) == 0 || downs[0] != rebootNow || time.Since(begun) != time.Minute+stuckAfter {
			t.Errorf("%v after %s", downs, time.Since(begun))
		}
		if !strings.Contains(console.String(), "mount hangs; the machine is restarted") {
			t.Error(console.String())
		}
	})
}

// TestARecoveryComesToAnEnd: the same failure in other words, or of an earlier stage, isn't a new one. One of a later
// stage is.
func TestARecoveryComesToAnEnd(t *testing.T) {
	for _, further := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			runs := 0
			fail := func(name string, when func() bool) Stage {
				return Stage{name, time.Minute, func(context.Context) (string, error) {
					if when() {
						return "", fmt.Errorf("the clock says %s", time.Now())
					}
					return "", nil
				}}
			}
			m, downs := fakeMachine(io.Discard,
				fail("identify", func() bool { runs++; return runs%2 == 0 || further && runs < 10 }),
				fail("fetch", func() bool { return true }))
			_ = m.run(t.Context())
			want := lastResort + 1
			if further {
				want += 10 // the eleventh is the first that gets further
			}
			if len(*downs) != 1 || runs != want {
				t.Errorf("taken down %v after %d runs, want %d", *downs, runs, want)
			}
		})
	}
}

// unwaitable is a console that the test types for.
type unwaitable struct{ io.Reader }

func (unwaitable) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// TestAPersonHoldsTheLastResort, also one who typed before the last retry.
func TestAPersonHoldsTheLastResort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		m, _ := fakeMachine(io.Discard, Stage{"persist", time.Minute, func(context.Context) (string, error) { runs++; return "", errors.New("no disk") }})
		lines := make(chan string)
		m.console = func() *terminal { return &terminal{in: unwaitable{}, lines: lines} }
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		go func() {
			every := time.NewTicker(10 * time.Minute)
			defer every.Stop()
			for {
				select {
				case <-every.C:
				case <-ctx.Done():
					return
				}
				select {
				case lines <- "status":
				case <-ctx.Done():
					return
				}
			}
		}()
		_ = m.run(ctx)
		if runs < 200 {
			t.Errorf("it was restarted after %d runs", runs)
		}
	})
}

// TestAHandOverThatStopsHalfway leaves nothing to recover in: the machine is restarted.
func TestAHandOverThatStopsHalfway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var console consoleBuffer
		m, downs := fakeMachine(&console, Stage{"mount", time.Minute, func(context.Context) (string, error) { return "", nil }})
		m.switchTo = func() error {
			return errors.Join(errSwitched, errors.New("start /sbin/init in the new root: input/output error"))
		}
		err := m.run(t.Context())
		if len(*downs) != 1 || (*downs)[0] != rebootNow || !errors.Is(err, errSwitched) {
			t.Errorf("taken down %v: %v", *downs, err)
		}
		if said := console.String(); strings.Contains(said, "recovery") || !strings.Contains(said, "input/output error") {
			t.Error(said)
		}
		if j := m.voice.journal.snapshot(); j.Outcome != HandedOver || !strings.Contains(j.Failure, "input/output error") {
			t.Errorf("journal %+v", j)
		}
	})
}
