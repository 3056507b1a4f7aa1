package boot

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/bootconfig"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/store"
)

// machineBoot returns a boot of a machine with that history, whose generations pass the health gate.
func (h *history) machineBoot() *boot {
	h.t.Helper()
	b := newBoot(Config{Now: time.Now, Console: io.Discard, Health: ByService})
	b.store = h.store
	if err := b.survey(); err != nil {
		h.t.Fatal(err)
	}
	return b
}

// staged makes a generation that nobody has tried.
func (h *history) staged(modules ...string) store.Generation {
	h.t.Helper()
	before, err := h.store.Pointer(store.Current)
	if err != nil {
		h.t.Fatal(err)
	}
	previous, err := h.store.Pointer(store.Previous)
	if err != nil {
		h.t.Fatal(err)
	}
	g := h.ran(modules...)
	if err := errors.Join(h.store.SetPointer(store.Current, before), h.store.SetPointer(store.Previous, previous), h.store.Stage(g.Number)); err != nil {
		h.t.Fatal(err)
	}
	return g
}

func (h *history) trial(n uint64) store.Trial {
	h.t.Helper()
	t, err := h.store.Trial(n)
	if err != nil {
		h.t.Fatal(err)
	}
	return t
}

// begin begins with what b fell back to, whose modules make what is recorded.
func begin(b *boot) error {
	b.composition = &assemble.Composition{RootDigest: b.generationOf(b.plan.back.Generation).RootDigest}
	return b.begin()
}

// TestAttemptsAreCountedFirst: three boots that all die leave a machine that boots what was good.
func TestAttemptsAreCountedFirst(t *testing.T) {
	h := newHistory(t)
	good := h.ran("base 1")
	g := h.staged("base 2")
	outage := errors.New("no answer")
	for attempt := 1; attempt <= 3; attempt++ {
		b := h.machineBoot()
		if err := b.fallBack(outage); err != nil || b.plan.back.Generation != g.Number {
			t.Fatalf("attempt %d: generation %d, %v", attempt, b.plan.back.Generation, err)
		}
		if err := begin(b); err != nil {
			t.Fatal(err)
		}
		if got := h.trial(g.Number); got.Attempts != attempt || b.running.Attempt != attempt || !b.running.IsTrial || b.generation.Number != g.Number {
			t.Errorf("attempt %d: %+v", attempt, got)
		}
	}
	b := h.machineBoot()
	if err := b.fallBack(outage); err != nil || b.plan.back.Generation != good.Number || b.plan.back.IsTrial {
		t.Errorf("generation %d, %v", b.plan.back.Generation, err)
	}
	if err := begin(b); err != nil || b.running.IsTrial || h.trial(good.Number).Attempts != 0 {
		t.Errorf("what is good is tried: %+v, %v", b.running, err)
	}
}

// TestAnUnfitGenerationIsTriedOnce, and the next one in the same boot.
func TestAnUnfitGenerationIsTriedOnce(t *testing.T) {
	h := newHistory(t)
	good := h.ran("base 1")
	g := h.staged("base 2")
	b := h.machineBoot()
	if err := errors.Join(b.fallBack(errors.New("no answer")), begin(b)); err != nil {
		t.Fatal(err)
	}
	unfit := errors.New("no init")
	b.condemn(b.running, unfit)
	if err := b.fallBack(unfit); err != nil || b.plan.back.Generation != good.Number {
		t.Errorf("generation %d, %v", b.plan.back.Generation, err)
	}
	if got := h.trial(g.Number); got.Failed != "no init" || !got.Exhausted() || got.Attempts != 1 {
		t.Errorf("trial %+v", got)
	}
	if list := h.machineBoot().candidates(); len(list) != 1 || list[0].Generation != good.Number {
		t.Errorf("candidates %+v", list)
	}
}

// TestTurn: a new composition is staged and tried; one that is known to be good isn't, and one that
// had its turns is refused.
func TestTurn(t *testing.T) {
	h := newHistory(t)
	good := h.ran("base 1")
	fresh := h.ran("base 2")
	if err := h.store.Promote(good.Number); err != nil {
		t.Fatal(err)
	}
	if err := h.store.SetPointer(store.Previous, 0); err != nil {
		t.Fatal(err)
	}
	b := h.machineBoot()
	if c, err := b.turn(good); err != nil || c.IsTrial {
		t.Errorf("%+v, %v", c, err)
	}
	c, err := b.turn(fresh)
	if err != nil || !c.IsTrial || c.Attempt != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	if n, err := h.store.Pointer(store.Staged); n != fresh.Number || err != nil {
		t.Errorf("staged is %d, %v", n, err)
	}
	b.condemn(c, errors.New("no init"))
	b = h.machineBoot()
	if c, err := b.turn(fresh); err == nil {
		t.Errorf("%+v", c)
	}
}

// TestReadOnlyDisk: nothing is counted there, so what is good comes before what is staged.
func TestReadOnlyDisk(t *testing.T) {
	h := newHistory(t)
	good := h.ran("base 1")
	h.staged("base 2")
	b := h.machineBoot()
	b.persist.ReadOnly = true
	if said, err := b.enroll(t.Context()); err != nil || b.plan.back.Generation != good.Number || !strings.Contains(said, "only be read") {
		t.Errorf("%s, generation %d, %v", said, b.plan.back.Generation, err)
	}
}

// TestAsked: what the kernel command line names comes first, and nobody is asked for a list.
func TestAsked(t *testing.T) {
	h := newHistory(t)
	old := h.ran("base 1")
	h.ran("base 2")
	b := h.machineBoot()
	b.settings.Generation = old.Number
	if err := b.survey(); err != nil {
		t.Fatal(err)
	}
	if said, err := b.fetch(t.Context()); err != nil || b.plan.back.Generation != old.Number || !strings.Contains(said, "kernel command line") {
		t.Errorf("%s, %v", said, err)
	}
}

// TestPolicyHolds: what the trust policy doesn't allow is a remark.
func TestPolicyHolds(t *testing.T) {
	for _, c := range []struct {
		mode        Config
		trust       Trust
		settings    bootconfig.Config
		breaks      string
		upper, word string
	}{
		{Config{}, Trust{}, bootconfig.Config{Break: "mount", Upper: "tmpfs", Etc: "ephemeral"}, "", "tmpfs", "recovery_shell"},
		{Config{}, Trust{RecoveryShell: true}, bootconfig.Config{Break: "mount", Upper: "persist"}, "mount", "persist", ""},
		{Config{}, Trust{RecoveryShell: true}, bootconfig.Config{Break: "moun", Upper: "tmpfs", Etc: "ephemeral"}, "", "tmpfs", "no such stage"},
		{Config{}, Trust{RecoveryShell: true}, bootconfig.Config{Break: "prepare", Upper: "tmpfs", Etc: "ephemeral"}, "", "tmpfs", "no such stage"},
		{Config{Sysroot: "/x"}, Trust{RecoveryShell: true}, bootconfig.Config{Break: "mount", Upper: "tmpfs", Etc: "ephemeral"}, "", "tmpfs", "another's initramfs"},
		{Config{}, Trust{EphemeralRoot: true}, bootconfig.Config{Upper: "persist", Etc: "ephemeral"}, "", "tmpfs", "ephemeral root"},
		{Config{}, Trust{EphemeralRoot: true}, bootconfig.Config{Upper: "tmpfs", Etc: "persistent"}, "", "tmpfs", "ephemeral root"},
	} {
		var console bytes.Buffer
		c.mode.Now, c.mode.Console = time.Now, &console
		b := newBoot(c.mode)
		b.settings = c.settings
		b.allow(&c.trust)
		if b.course.breakAt != c.breaks || b.settings.Upper != c.upper || (c.trust.EphemeralRoot && b.settings.Etc != "ephemeral") {
			t.Errorf("%+v: breaks at %q, upper %s, etc %s", c, b.course.breakAt, b.settings.Upper, b.settings.Etc)
		}
		if (c.word == "") != (console.Len() == 0) || !strings.Contains(console.String(), c.word) {
			t.Errorf("%+v: console %q", c, console.String())
		}
	}
}

// TestAnotherRound: a machine that has nothing but a generation whose attempts are used up tries it again once
// it has waited for long enough, and not one that was found bad.
func TestAnotherRound(t *testing.T) {
	for _, failed := range []string{"", "it was found bad"} {
		h := newHistory(t)
		g := h.staged("base 1")
		if err := h.store.PutTrial(store.Trial{Generation: g.Number, Attempts: 3, Limit: 3, Failed: failed}); err != nil {
			t.Fatal(err)
		}
		b := h.machineBoot()
		if got := b.candidates(); len(got) != 0 {
			t.Errorf("failed %q: candidates %+v before the wait", failed, got)
		}
		b.patient = true
		if err := b.survey(); err != nil {
			t.Fatal(err)
		}
		if got := b.candidates(); (len(got) == 1) != (failed == "") {
			t.Errorf("failed %q: candidates %+v after it", failed, got)
		}
	}
}

// TestAskingAnew: what was asked for once and used up its attempts can be asked for again after a boot
// that didn't ask.
func TestAskingAnew(t *testing.T) {
	h := newHistory(t)
	h.ran("base 1")
	g := h.staged("base 2")
	if err := h.store.PutTrial(store.Trial{Generation: g.Number, Attempts: 3, Limit: 3, Asked: true}); err != nil {
		t.Fatal(err)
	}
	b := h.machineBoot() // nothing is asked for
	if h.trial(g.Number).Asked {
		t.Error("it still counts as asked for")
	}
	b.settings.Generation = g.Number
	if err := b.survey(); err != nil {
		t.Fatal(err)
	}
	if c, ok := b.asked(); !ok || !c.IsTrial || c.Attempt != 1 {
		t.Errorf("asked again: %+v, %t", c, ok)
	}
}

// TestAnotherRootIsOnTrial: what the modules of a good generation make with another release of the agent isn't known
// to be good.
func TestAnotherRootIsOnTrial(t *testing.T) {
	for _, readOnly := range []bool{false, true} {
		h := newHistory(t)
		good := h.ran("base 1")
		b := h.machineBoot()
		if err := b.fallBack(errors.New("no answer")); err != nil || b.plan.back.Generation != good.Number {
			t.Fatalf("generation %d, %v", b.plan.back.Generation, err)
		}
		b.composition = &assemble.Composition{RootDigest: fsverity.SumBytes(nil)}
		for _, w := range b.plan.wanted {
			b.composition.Modules = append(b.composition.Modules, &assemble.Proven{Wanted: w, Module: store.Module{Seal: good.Modules[0].Seal}})
		}
		b.persist.ReadOnly = readOnly
		var err error
		if b.reconciler, err = reconcile.New(reconcile.Config{Store: h.store, Platform: slowPlatform{}}); err != nil {
			t.Fatal(err)
		}
		defer b.reconciler.Close()
		err = b.begin()
		if readOnly {
			if fault.KindOf(err) != fault.Refuse {
				t.Errorf("on a disk that can only be read: %v", err)
			}
			continue
		}
		if err != nil || !b.running.IsTrial || b.generation.Number == good.Number || b.generation.RootDigest != b.composition.RootDigest {
			t.Errorf("%v: %+v runs as %+v", err, b.generation, b.running)
		}
		if n, err := h.store.Pointer(store.Current); n != good.Number || err != nil || h.trial(b.generation.Number).Attempts != 1 {
			t.Errorf("current is %d, %v; trial %+v", n, err, h.trial(b.generation.Number))
		}
	}
}

// TestOnlyTheCurrentRootEndsWhatWasDropped: a root that is tried isn't it, whatever the modules are.
func TestOnlyTheCurrentRootEndsWhatWasDropped(t *testing.T) {
	h := newHistory(t)
	current := h.ran("base 1")
	staged := h.staged("base 2")
	for _, g := range []store.Generation{current, staged} {
		b := h.machineBoot()
		b.config.Init = []string{"/sbin/init"}
		b.composition = &assemble.Composition{RootDigest: g.RootDigest}
		if got := b.rootSpec().Current; got != (g.Number == current.Number) {
			t.Errorf("generation %d: %t", g.Number, got)
		}
	}
}
