package agentcli

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/task"
)

// aMachine runs commands as it is told to, and hears who is to end.
type aMachine struct {
	run         func(ctx context.Context, p systemd.Program) (int, error)
	ran         []systemd.Program
	interrupted chan string
}

func (m *aMachine) RunOnce(ctx context.Context, p systemd.Program, _ time.Duration) (int, error) {
	m.ran = append(m.ran, p)
	return m.run(ctx, p)
}

func (m *aMachine) Interrupt(_ context.Context, unit string) error {
	m.interrupted <- unit
	return nil
}

func newOutside(t *testing.T) (*outside, *aMachine) {
	t.Helper()
	m := &aMachine{interrupted: make(chan string, 1)}
	return &outside{programs: m, stateDir: "/s", runDir: t.TempDir(), log: slog.New(slog.DiscardHandler)}, m
}

// says has the machine's programs print an answer.
func says(t *testing.T, a taskAnswer) func(context.Context, systemd.Program) (int, error) {
	return func(_ context.Context, p systemd.Program) (int, error) {
		text, err := json.Marshal(a)
		if err == nil {
			err = os.WriteFile(p.Output, text, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
		return 0, nil
	}
}

// TestOutside: a command is run once as a unit, with its arguments behind "--", and a service that begins anew finds what came of it.
func TestOutside(t *testing.T) {
	o, m := newOutside(t)
	m.run = says(t, taskAnswer{Task: "t1", Result: json.RawMessage(`{"outcome":"live"}`)})
	answer, err := o.do(t.Context(), taskUnit, "t1", false, []string{"attach", "nginx"}, nil)
	if err != nil || string(answer.Result) != `{"outcome":"live"}` {
		t.Fatalf("%+v, %v", answer, err)
	}
	if got := strings.Join(m.ran[0].Args[1:], " "); got != "do-task --state=/s task t1 -- attach nginx --output json" || m.ran[0].Unit != "powernode-agent-task.service" {
		t.Errorf("%s as %s", got, m.ran[0].Unit)
	}
	if again, err := o.do(t.Context(), taskUnit, "t1", true, []string{"attach", "nginx"}, nil); err != nil || len(m.ran) != 1 || !slices.Equal(again.Result, answer.Result) {
		t.Errorf("it was run %d times: %+v, %v", len(m.ran), again, err)
	}
	// The answer of another task is none, nor is half of one.
	m.run = says(t, taskAnswer{Task: "t2"})
	if _, err := o.do(t.Context(), taskUnit, "t2", true, []string{"gc"}, nil); err != nil || len(m.ran) != 2 {
		t.Errorf("it was run %d times: %v", len(m.ran), err)
	}
	if err := os.WriteFile(o.runDir+"/task.answer.json", []byte(`{"task":"t2"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := o.do(t.Context(), taskUnit, "t2", true, []string{"gc"}, nil); err != nil || len(m.ran) != 3 {
		t.Errorf("it was run %d times: %v", len(m.ran), err)
	}
	m.run = says(t, taskAnswer{Task: "somebody's"})
	if _, err := o.do(t.Context(), taskUnit, "t3", false, []string{"gc"}, nil); fault.KindOf(err) != fault.Broken {
		t.Errorf("the answer of another one: %v", err)
	}
	m.run = func(context.Context, systemd.Program) (int, error) { return 0, errors.New("no memory") }
	if _, err := o.do(t.Context(), taskUnit, "t3", false, []string{"gc"}, nil); fault.KindOf(err) != fault.Retry {
		t.Errorf("it can't be run: %v", err)
	}
}

// TestOutsideWaits for a command that runs already, whoever began it.
func TestOutsideWaits(t *testing.T) {
	o, m := newOutside(t)
	dir, err := durable.OpenDir(o.runDir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	lock, err := dir.TryLock(taskLockName(taskUnit), durable.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	m.run = says(t, taskAnswer{Task: "t1"})
	time.AfterFunc(50*time.Millisecond, func() { _ = lock.Unlock() })
	if _, err := o.do(t.Context(), taskUnit, "t1", false, []string{"gc"}, nil); err != nil || len(m.ran) != 1 {
		t.Errorf("%d, %v", len(m.ran), err)
	}
	runs := 0
	m.run = func(ctx context.Context, p systemd.Program) (int, error) {
		if runs++; runs == 1 {
			return 0, systemd.ErrRuns
		}
		return says(t, taskAnswer{Task: "t1"})(ctx, p)
	}
	if _, err := o.do(t.Context(), taskUnit, "t1", false, []string{"gc"}, nil); err != nil || runs != 2 {
		t.Errorf("%d, %v", runs, err)
	}
}

// TestOutsideHangs: a command that is there and never ends, with its lock free, doesn't keep a task beyond its context, nor a core busy.
func TestOutsideHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, m := newOutside(t)
		m.run = func(context.Context, systemd.Program) (int, error) { return 0, systemd.ErrRuns }
		ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, task.ErrTimeout)
		defer cancel()
		_, err := o.do(ctx, taskUnit, "t1", false, []string{"gc"}, nil)
		if !errors.Is(err, task.ErrTimeout) || len(m.ran) > 41 {
			t.Errorf("it was tried %d times: %v", len(m.ran), err)
		}
		<-m.interrupted
	})
}

// TestOutsideGoesOn: the task of a command that doesn't end when it is told to says that it goes on.
func TestOutsideGoesOn(t *testing.T) {
	for _, cause := range []error{task.ErrCancelled, task.ErrTimeout, task.ErrLeaseLost} {
		synctest.Test(t, func(t *testing.T) {
			o, m := newOutside(t)
			m.run = func(ctx context.Context, _ systemd.Program) (int, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(cause) })
			begun := time.Now()
			_, err := o.do(ctx, taskUnit, "t1", false, []string{"update"}, nil)
			if err == nil || !strings.Contains(err.Error(), "still goes on as powernode-agent-task.service") {
				t.Error(err)
			}
			if took := time.Since(begun); took != time.Second+commandWindUp {
				t.Errorf("it waits %s", took)
			}
			<-m.interrupted
		})
	}
}

// TestLateEnd: what becomes of a command that the service doesn't wait for any more is in an audit record of its own.
func TestLateEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var told interruption
		defer told.watch(ctx)()
		time.Sleep(time.Hour)
		if late := told.late(time.Now()); late != 0 {
			t.Errorf("nobody told it to end: %s", late)
		}
		cancel()
		synctest.Wait()
		time.Sleep(commandWindUp - 2*time.Second)
		if late := told.late(time.Now()); late != 0 {
			t.Errorf("the service waits for it: %s", late)
		}
		time.Sleep(time.Minute)
		late := told.late(time.Now())
		if late != commandWindUp-2*time.Second+time.Minute {
			t.Error(late)
		}
		a := lateEnd("t1", []string{"update"}, taskAnswer{}, late)
		if a.Failed || a.Task != "t1" || a.Result != "its command has ended 1m43s after it was told to: complete all the same" {
			t.Errorf("%+v", a)
		}
		a = lateEnd("t1", []string{"update"}, taskAnswer{Code: 1, Error: &taskError{Message: "interrupted"}}, late)
		if !a.Failed || !strings.HasSuffix(a.Result, ": interrupted") {
			t.Errorf("%+v", a)
		}
	})
}

// TestOutsideEnds: a cancelled command is asked to end and waited for; at the end of the service it is left alone.
func TestOutsideEnds(t *testing.T) {
	o, m := newOutside(t)
	for _, cause := range []error{task.ErrCancelled, task.ErrEnding, context.Canceled} {
		begun := make(chan struct{})
		m.run = func(ctx context.Context, p systemd.Program) (int, error) {
			close(begun)
			if ending(cause) {
				<-ctx.Done()
				return 0, ctx.Err()
			}
			if unit := <-m.interrupted; unit != "powernode-agent-task.service" {
				t.Error(unit)
			}
			return says(t, taskAnswer{Task: "t1", Code: cli.ExitInterrupted, Error: &taskError{Message: "interrupted"}})(ctx, p)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { <-begun; cancel(cause) }()
		answer, err := o.do(ctx, taskUnit, "t1", false, []string{"gc"}, nil)
		switch {
		case ending(cause):
			if !errors.Is(err, cause) || len(m.interrupted) > 0 {
				t.Errorf("%+v, %v", answer, err)
			}
		case err != nil || answer.Code != cli.ExitInterrupted:
			t.Errorf("%+v, %v", answer, err)
		}
	}
}

// TestOutsideIsResumed: a command that was told to end since the lease of its task was lost is run again once there is another lease: what it said of
// its end isn't what has become of the task.
func TestOutsideIsResumed(t *testing.T) {
	for _, end := range []taskAnswer{
		{Task: "t1", Code: cli.ExitInterrupted, Error: &taskError{Message: "interrupted"}},
		{Task: "t1", Code: cli.ExitPlatform, Error: &taskError{Message: "pull: nobody answers", Kind: "retry"}, Interrupted: true},
		{Task: "t1", Code: cli.ExitPartial, Result: json.RawMessage(`{"outcome":"taken back"}`), Interrupted: true},
	} {
		o, m := newOutside(t)
		h := taskHandlers{outside: o, stateDir: "/s"}
		begun := make(chan struct{})
		m.run = func(ctx context.Context, p systemd.Program) (int, error) {
			close(begun)
			<-m.interrupted
			return says(t, end)(ctx, p)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { <-begun; cancel(task.ErrLeaseLost) }()
		if _, err := h.command(ctx, task.Task{ID: "t1", Kind: nodeapi.TaskUpdate, Attempt: 1, Run: 1}, quiet{io.Discard}); err == nil {
			t.Error("it was told to end, and is done")
		}
		m.run = says(t, taskAnswer{Task: "t1", Result: json.RawMessage(`{"outcome":"live"}`)})
		for run := 2; run <= 3; run++ {
			result, err := h.command(t.Context(), task.Task{ID: "t1", Kind: nodeapi.TaskUpdate, Attempt: run, Run: run}, quiet{io.Discard})
			if err != nil || len(m.ran) != 2 || string(plain(result.Data)) != `{"outcome":"live"}` {
				t.Errorf("run %d after %+v: %s, %v, with %d commands", run, end, plain(result.Data), err, len(m.ran))
			}
		}
	}
}

// TestOutcome: what a command came to, in the words of a task.
func TestOutcome(t *testing.T) {
	for _, c := range []struct {
		answer taskAnswer
		code   nodeapi.FailCode // "" is success
		text   string
	}{
		{taskAnswer{Result: json.RawMessage(`{}`)}, "", ""},
		{taskAnswer{Code: 6, Error: &taskError{Message: "it isn't assigned", Kind: "refuse"}}, nodeapi.FailRefused, "it isn't assigned"},
		{taskAnswer{Code: 5, Error: &taskError{Message: "nobody answers", Kind: "retry"}}, task.CodeUnavailable, "nobody answers"},
		{taskAnswer{Code: 1, Error: &taskError{Message: "what is this", Kind: "broken"}}, nodeapi.FailFailed, "what is this"},
		{taskAnswer{Code: 8, Result: json.RawMessage(`{"outcome":"taken back"}`)}, codePartial, "taken back"},
		{taskAnswer{Code: 8, Result: json.RawMessage(`{"failed":[{"name":"app","version":"2","reason":"nobody signed it"}]}`)}, codePartial, "app 2: nobody signed it"},
		{taskAnswer{Code: 8, Result: json.RawMessage(`{"parts":[{"part":"hosts","error":"no room"}]}`)}, codePartial, "hosts: no room"},
		{taskAnswer{Code: 4, Result: json.RawMessage(`{"ok":false}`)}, nodeapi.FailFailed, "exit code 4"},
	} {
		_, err := c.answer.outcome()
		if c.code == "" {
			if err != nil {
				t.Errorf("%+v: %v", c.answer, err)
			}
			continue
		}
		if err == nil || task.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: %v, code %s", c.answer, err, task.CodeOf(err))
		}
	}
}

// TestSyncOutcome: what a service that brings its node in step makes of the command's answer.
func TestSyncOutcome(t *testing.T) {
	for _, c := range []struct {
		answer  taskAnswer
		config  string
		changed bool
		kind    string // "" is success
	}{
		{taskAnswer{Result: json.RawMessage(`{"config_digest":"c","parts":[{"part":"modules","result":"in step"}]}`)}, "c", false, ""},
		{taskAnswer{Result: json.RawMessage(`{"config_digest":"c","parts":[{"result":"changed"}]}`)}, "c", true, ""},
		{taskAnswer{Code: 8, Result: json.RawMessage(`{"config_digest":"c","parts":[{"result":"failed","error":"x"}]}`)}, "c", false, "refuse"},
		{taskAnswer{Code: 8, Result: json.RawMessage(`{"config_digest":"c","parts":[{"part":"modules","result":"partly","unreached":true,"remarks":["app 2 can't be had: x"]}]}`)}, "c", true, "retry"},
		{taskAnswer{Code: 5, Error: &taskError{Message: "away", Kind: "retry"}}, "", false, "retry"},
	} {
		config, changed, err := syncOutcome(&c.answer)
		if config != c.config || changed != c.changed || (err == nil) != (c.kind == "") || err != nil && fault.KindOf(err).String() != c.kind {
			t.Errorf("%+v: %q, %t, %v", c.answer, config, changed, err)
		}
	}
	if serviceDrain < taskPatience+3*time.Second {
		t.Errorf("the service has %s to end, its tasks %s", serviceDrain, taskPatience)
	}
}

// TestDownYet: systemd cancels the command of a soft-reboot that it has begun, and ends the service soon after. That is no failure of the task; where
// the service goes on, it was one.
func TestDownYet(t *testing.T) {
	canceled := errors.New("its job is canceled")
	synctest.Test(t, func(t *testing.T) {
		if err := downYet(t.Context(), canceled); !errors.Is(err, canceled) {
			t.Errorf("the service goes on: %v", err)
		}
		ctx, end := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Second, func() { end(task.ErrEnding) })
		if err := downYet(ctx, canceled); err != nil {
			t.Errorf("the service ends: %v", err)
		}
		ctx, end = context.WithCancelCause(t.Context())
		end(context.DeadlineExceeded)
		if err := downYet(ctx, canceled); !errors.Is(err, canceled) {
			t.Errorf("the task's time is over: %v", err)
		}
	})
}
