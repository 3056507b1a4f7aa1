package change

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/change/desired"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/store"
)

var errSilent = fault.New(fault.Retry, fault.Platform, "", "no answer")

// settle waits for what became of a change, and has that done, as a command does.
func (n *node) settle(r *Result) {
	n.t.Helper()
	reached, err := Await(n.t.Context(), n.run, r, n, func(context.Context, time.Duration) {})
	if err == nil {
		err = n.changer().Settle(n.t.Context(), reached, r)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// answered is an answer of the platform to a question that was just asked.
func answered(c *Changer) (bool, error) {
	p, ok, err := Waiting(c.RunDir)
	if err != nil || !ok {
		return false, err
	}
	return c.Confirmed(p)
}

// TestConfirm: a change that nobody confirms is taken back, by whoever comes first; one that is confirmed stays.
func TestConfirm(t *testing.T) {
	n := ready(t)
	detach := Request{Kind: Detach, Modules: []string{"site"}, Confirm: time.Hour}
	r, err := n.do(detach)
	if err != nil || r.ConfirmBy.IsZero() {
		t.Fatal(r, err)
	}
	n.settle(r)
	if r.Outcome != WentLive || !r.ConfirmBy.IsZero() {
		t.Errorf("the platform answers: %+v", r)
	}
	n.is("confirmed", 3, "app 1, base 2")
	n.must(Request{Kind: Attach, Modules: []string{"site"}})
	now := n.facts

	n.down = errSilent
	detach.Confirm = time.Nanosecond
	if r, err = n.do(detach); err != nil || r.Outcome != WentLive {
		t.Fatal(r, err)
	}
	if p, ok, err := Waiting(n.run); !ok || err != nil || p.Generation != r.Generation || p.Back != now {
		t.Errorf("%+v, %t, %v", p, ok, err)
	}
	tried := r.Generation
	// Its process is killed now; another one comes.
	n.settle(r)
	if r.Outcome != TakenBack || r.Generation != now || !r.ConfirmBy.IsZero() {
		t.Errorf("nobody answers: %+v", r)
	}
	n.is("taken back", now, "app 1, base 2, site 1")
	if l, err := desired.ReadLocal(n.store.Path()); err != nil || len(l.Detached) != 0 {
		t.Errorf("%+v, %v", l, err)
	}
	if tr, err := n.store.Trial(tried); err != nil || tr.Failed == "" {
		t.Errorf("%+v, %v", tr, err)
	}
	if r, err := n.changer().TakeBack(t.Context()); r != nil || err != nil {
		t.Error("once more", r, err)
	}
}

// TestReached: only what the platform itself said counts.
func TestReached(t *testing.T) {
	refused := func(text string) error { return fault.New(fault.Refuse, fault.Platform, "", "%s", text) }
	for _, c := range []struct {
		what string
		err  error
		want bool
	}{
		{"an answer", nil, true},
		{"a refusal", &nodehttp.StatusError{Status: http.StatusForbidden}, true},
		{"an outage behind its proxy", fmt.Errorf("list: %w", &nodehttp.StatusError{Status: http.StatusServiceUnavailable}), true},
		{"silence", errSilent, false},
		{"no credentials", refused("this node has no credentials that serve"), false},
		{"another CA", refused("the server's certificate isn't signed by the CA that this node trusts"), false},
		{"another name", refused("the server's certificate is for portal, not for platform"), false},
		{"no TLS", refused("the server there doesn't speak TLS"), false},
		{"the end of time", context.DeadlineExceeded, false},
	} {
		if got := Reached(c.err); got != c.want {
			t.Errorf("%s: %t", c.what, got)
		}
	}
}

// TestNobodyToAsk: a change that nobody could confirm doesn't begin.
func TestNobodyToAsk(t *testing.T) {
	n := ready(t)
	c := n.changer(func(c *Config) {
		c.Reconciler = n.reconciler(func(r *reconcile.Config) { r.Platform = nil })
	})
	for _, dry := range []bool{false, true} {
		_, err := c.Clear(t.Context(), Request{Kind: Detach, Modules: []string{"site"}, Confirm: time.Minute, DryRun: dry})
		if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Platform || fault.HintOf(err) == "" {
			t.Errorf("dry run %t: %v", dry, err)
		}
	}
	if _, err := c.Clear(t.Context(), Request{Kind: Detach, Modules: []string{"site"}}); err != nil {
		t.Errorf("without a window: %v", err)
	}
}

// TestOneWaits: while a change waits to be confirmed no other one begins, but for going back; and one that waits is confirmed
// where the platform answers by then.
func TestOneWaits(t *testing.T) {
	n := ready(t)
	detach := Request{Kind: Detach, Modules: []string{"site"}, Confirm: time.Hour}
	other := Request{Kind: Detach, Modules: []string{"app"}}
	wait := func() {
		t.Helper()
		n.down = nil
		if _, err := n.do(detach); err != nil {
			t.Fatal(err)
		}
		n.down = errSilent
	}
	wait()
	for _, r := range []Request{other, {Kind: Update}, {Kind: Rollback, Confirm: time.Minute}} {
		if _, err := n.changer().Clear(t.Context(), r); fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "generation 3 isn't confirmed yet") {
			t.Errorf("%+v: %v", r, err)
		}
	}
	dry := other
	dry.DryRun = true
	before := n.state()
	if e, err := n.changer().Clear(t.Context(), dry); err != nil || len(e.Said) != 1 || e.Result != nil {
		t.Errorf("a dry run: %+v, %v", e, err)
	} else {
		_, rest, _ := strings.Cut(e.Said[0], "generation 2 comes back in ")
		text, _, _ := strings.Cut(rest, " ")
		// Of the hour some is gone by now.
		if left, err := time.ParseDuration(text); err != nil || left > time.Hour || left < 30*time.Minute || left != left.Round(time.Second) {
			t.Errorf("a dry run: %+v", e)
		}
	}
	if n.state() != before {
		t.Error("a dry run changes something")
	}

	c := n.changer()
	back := Request{Kind: Rollback, Generation: 2}
	if e, err := c.Clear(t.Context(), back); err != nil || len(e.Said) > 0 || e.Result != nil {
		t.Fatal(e, err)
	}
	if _, err := c.Do(t.Context(), back); err != nil {
		t.Fatal(err)
	}
	if err := c.Forget(); err != nil {
		t.Fatal(err)
	}
	if _, waits, err := Waiting(n.run); waits || err != nil {
		t.Error("what somebody went back from still waits", err)
	}

	wait()
	n.down = nil
	e, err := n.changer().Clear(t.Context(), other)
	if err != nil || len(e.Said) != 1 || e.Result != nil || !strings.Contains(e.Said[0], "is confirmed: the platform answers") {
		t.Errorf("the platform answers: %+v, %v", e, err)
	}
	if _, waits, err := Waiting(n.run); waits || err != nil {
		t.Error("what was confirmed still waits", err)
	}
}

// TestConfirmedWithoutARecord: a change that works stays, also where its own record can't be read any more.
func TestConfirmedWithoutARecord(t *testing.T) {
	n := ready(t)
	r, err := n.do(Request{Kind: Detach, Modules: []string{"site"}, Confirm: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(n.store.Path(), "generations", fmt.Sprint(r.Generation)+".json")
	if err := os.WriteFile(record, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if ok, err := answered(n.changer()); !ok || err != nil {
		t.Errorf("%t, %v", ok, err)
	}
	if _, waits, err := Waiting(n.run); waits || err != nil {
		t.Error("it still waits", err)
	}
}

// TestAnotherRuns: an answer confirms nothing that doesn't run any more, and so raises no floor by it.
func TestAnotherRuns(t *testing.T) {
	n := three(t)
	n.module("app", "9", map[string]string{"usr/app": long("nine")})
	if _, err := n.do(Request{Kind: Update, Confirm: time.Hour}); err != nil {
		t.Fatal(err)
	}
	n.must(Request{Kind: Rollback})
	if ok, err := answered(n.changer()); ok || err != nil {
		t.Errorf("%t, %v", ok, err)
	}
	if floors, err := n.store.Floors(); err != nil || floors["app"].Version != "1" {
		t.Errorf("%+v, %v", floors, err)
	}
}

// TestTakenBackInTheEnd kills what takes a change back at each of its steps: whoever comes next goes on with it, and the window isn't
// forgotten.
func TestTakenBackInTheEnd(t *testing.T) {
	first := ready(t)
	r, err := first.do(Request{Kind: Detach, Modules: []string{"site"}, Confirm: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	first.down = errSilent
	steps := 0
	for fails := range []bool{false, true} {
		for k := 0; ; k++ {
			n := first.copy(t)
			if err := os.CopyFS(n.run, os.DirFS(first.run)); err != nil {
				t.Fatal(err)
			}
			count, at := 0, ""
			hook := durable.Hook(func(op string) error {
				if count++; count != k+1 {
					return nil
				}
				at = op
				if fails == 1 {
					return errors.New("no space left")
				}
				panic(killed(op))
			})
			n.stepping(hook)
			func() {
				defer func() {
					if _, dead := recover().(killed); !dead && at != "" && fails == 0 {
						t.Errorf("it isn't killed at %s", at)
					}
				}()
				_, _ = n.changer(func(c *Config) { c.Hook = hook }).FinishEarlier(t.Context())
			}()
			if at == "" {
				break
			}
			steps++
			n.stepping(nil)
			if _, err := n.changer().FinishEarlier(t.Context()); err != nil {
				t.Fatalf("after %s: %v", at, err)
			}
			_, waits, err := Waiting(n.run)
			if n.facts != 2 || n.system.runs != 2 || n.pointer(store.Current) != 2 || waits || err != nil || Unfinished(n.run) {
				t.Errorf("after %s: %s", at, n.said())
			}
			if tr, err := n.store.Trial(r.Generation); err != nil || tr.Failed == "" {
				t.Errorf("after %s: it counts as %+v, %v", at, tr, err)
			}
		}
	}
	if steps < 20 {
		t.Errorf("%d steps", steps)
	}
}

// TestSaidBesideAnError: what was brought to its end is told of also where the next step fails; and a dry run refuses to plan over it.
func TestSaidBesideAnError(t *testing.T) {
	n := ready(t)
	n.stepping(func(op string) error {
		if strings.HasPrefix(op, "current") || strings.Contains(op, "pointer") {
			panic(killed(op))
		}
		return nil
	})
	if at, err := n.dies(nil, Request{Kind: Detach, Modules: []string{"site"}}); at == "" {
		t.Fatal("it isn't killed", err)
	}
	n.stepping(nil)
	if _, err := n.changer().Clear(t.Context(), Request{Kind: Update, DryRun: true}); fault.KindOf(err) != fault.Retry || fault.HintOf(err) == "" {
		t.Errorf("a dry run: %v", err)
	}
	e, err := n.changer().Clear(t.Context(), Request{Kind: Update})
	if err != nil || len(e.Said) != 1 || !strings.Contains(e.Said[0], "interrupted, and is taken back") {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestTakenBackByABoot: what can't be taken back live is by the next boot, and that is said.
func TestTakenBackByABoot(t *testing.T) {
	n := ready(t)
	if _, err := n.do(Request{Kind: Detach, Modules: []string{"site"}, Confirm: time.Nanosecond}); err != nil {
		t.Fatal(err)
	}
	e, err := n.changer(func(c *Config) { c.Running.NotLive = "the kernel can't" }).FinishEarlier(t.Context())
	if err != nil || len(e.Said) == 0 || !strings.HasSuffix(e.Said[0], "generation 2 can't come back live, and does so at the next boot") {
		t.Errorf("%+v, %v", e, err)
	}
	if _, waits, err := Waiting(n.run); waits || err != nil || n.pointer(store.Staged) != 2 {
		t.Errorf("generation %d is staged; it waits: %t, %v", n.pointer(store.Staged), waits, err)
	}
}
