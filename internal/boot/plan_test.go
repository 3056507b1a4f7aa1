package boot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/trial"
)

// history is a store with modules and generations, as boots before have left it.
type history struct {
	t     *testing.T
	store *store.Store
}

func newHistory(t *testing.T) *history {
	t.Helper()
	st, err := store.Open(filepath.Join(t.TempDir(), "store"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return &history{t, st}
}

// ran makes a generation of modules, "name version" each, and makes it current.
func (h *history) ran(modules ...string) store.Generation {
	h.t.Helper()
	image := []byte("root of " + strings.Join(modules, ", "))
	g := store.Generation{Created: time.Unix(1, 0).UTC(), RootDigest: fsverity.SumBytes(image), Cause: "test", Level: "checked"}
	for _, m := range modules {
		name, version, _ := strings.Cut(m, " ")
		manifest, own := []byte("manifest of "+m), []byte("image of "+m)
		sum := sha256.Sum256(manifest)
		record := store.Module{
			Name: name, Version: version, Repository: "example.org/" + name, ManifestDigest: "sha256:" + hex.EncodeToString(sum[:]),
			Seal: fsverity.SumBytes(own), PulledAt: time.Unix(1, 0).UTC(), Manifest: manifest, Config: []byte("{}"),
		}
		if err := h.store.PutModule(record, bytes.NewReader(own)); err != nil {
			h.t.Fatal(err)
		}
		g.Modules = append(g.Modules, store.GenerationModule{ID: name, Name: name, Version: version, ManifestDigest: record.ManifestDigest, Seal: record.Seal, EffectivePriority: 1})
	}
	var err error
	if g.Number, err = h.store.PutGeneration(g, bytes.NewReader(image)); err == nil {
		err = h.store.Promote(g.Number)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return g
}

// boot returns a boot that has the store's generations to fall back to.
func (h *history) boot(console *bytes.Buffer) *boot {
	h.t.Helper()
	b := newBoot(Config{Console: console, Namespace: true, Now: time.Now})
	b.store = h.store
	if err := b.survey(); err != nil {
		h.t.Fatal(err)
	}
	return b
}

func names(wanted []assemble.Wanted) string {
	var list []string
	for _, w := range wanted {
		list = append(list, w.String())
	}
	return strings.Join(list, ", ")
}

var reason = fault.New(fault.Refuse, fault.Verify, "sign it", "module app 3 isn't signed")

func TestFallBackToWhatRan(t *testing.T) {
	h := newHistory(t)
	h.ran("base 1", "app 1")
	h.ran("base 1", "app 2")
	var console bytes.Buffer
	b := h.boot(&console)
	b.plan.expected = fsverity.SumBytes([]byte("the platform's"))

	if err := b.fallBack(reason); err != nil {
		t.Fatal(err)
	}
	if names(b.plan.wanted) != "base 1, app 2" || b.plan.back.Generation != 2 || !b.plan.expected.IsZero() {
		t.Errorf("the plan is %s, generation %d, expected %s", names(b.plan.wanted), b.plan.back.Generation, b.plan.expected)
	}
	if want := "module app 3 isn't signed; staying with generation 2; sign it"; len(b.facts.Remarks) != 1 || b.facts.Remarks[0] != want || !strings.Contains(console.String(), "remark: "+want+"\n") {
		t.Errorf("remarks %q, console %q", b.facts.Remarks, console.String())
	}
	if b.facts.Refused != "module app 3 isn't signed" {
		t.Errorf("refused: %q", b.facts.Refused)
	}
	if err := b.fallBack(reason); err != nil || b.plan.back.Generation != 1 {
		t.Errorf("generation %d, %v", b.plan.back.Generation, err)
	}
	if err := b.fallBack(reason); !errors.Is(err, reason) || len(b.facts.Remarks) != 2 {
		t.Errorf("with nothing left: %v, remarks %q", err, b.facts.Remarks)
	}
}

// TestFallBackPassesOver what would fail for the same reason.
func TestFallBackPassesOver(t *testing.T) {
	h := newHistory(t)
	h.ran("base 1", "app 1")
	h.ran("base 1", "app 2")
	b := h.boot(&bytes.Buffer{})
	if err := b.fallBack(reason); err != nil {
		t.Fatal(err)
	}
	b.plan.back, b.plan.unfit = trial.Candidate{}, nil
	if err := b.fallBack(reason); err != nil || b.plan.back.Generation != 1 {
		t.Errorf("generation %d, %v", b.plan.back.Generation, err)
	}
}

// TestAnOutageIsNoRefusal: that nobody could be asked is no reason to call the node out of step.
func TestAnOutageIsNoRefusal(t *testing.T) {
	h := newHistory(t)
	h.ran("base 1")
	b := h.boot(&bytes.Buffer{})
	if err := b.fallBack(fault.New(fault.Retry, fault.Platform, "wait", "no answer")); err != nil {
		t.Fatal(err)
	}
	if b.facts.Refused != "" || len(b.facts.Remarks) != 1 {
		t.Errorf("refused %q, remarks %q", b.facts.Refused, b.facts.Remarks)
	}
}

func TestFallBackSaysWhatElseIsWrong(t *testing.T) {
	h := newHistory(t)
	g := h.ran("base 1")
	b := h.boot(&bytes.Buffer{})
	if err := h.store.RemoveModule(g.Modules[0].ManifestDigest); err != nil {
		t.Fatal(err)
	}
	err := b.fallBack(reason)
	if !errors.Is(err, reason) || !strings.Contains(err.Error(), "nor can generation 1 be used: ") || fault.KindOf(err) != fault.Refuse || fault.HintOf(err) != "sign it" {
		t.Errorf("error %v", err)
	}
}

// TestInsteadOf tries one generation after the other, each with all the steps.
func TestInsteadOf(t *testing.T) {
	h := newHistory(t)
	h.ran("base 1", "app 1")
	h.ran("base 1", "app 2")
	b := h.boot(&bytes.Buffer{})
	var did []string
	step := func(name string, bad uint64) func(context.Context) error {
		return func(context.Context) error {
			did = append(did, name)
			if b.plan.back.Generation == bad {
				return errors.New(name + " fails")
			}
			return nil
		}
	}
	if err := b.insteadOf(t.Context(), reason, step("prove", 0), step("compose", 2), step("mount", 0)); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(did, " "); got != "prove compose prove compose mount" || b.plan.back.Generation != 1 {
		t.Errorf("did %s, generation %d", got, b.plan.back.Generation)
	}

	b = h.boot(&bytes.Buffer{})
	if err := b.insteadOf(t.Context(), reason, func(context.Context) error { return errors.New("always") }); err == nil || err.Error() != "always" {
		t.Errorf("error %v, want the last one", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	b = h.boot(&bytes.Buffer{})
	err := b.insteadOf(ctx, reason, func(context.Context) error { cancel(); return ctx.Err() })
	if !errors.Is(err, context.Canceled) || b.plan.back.Generation != 2 {
		t.Errorf("interrupted: %v, generation %d", err, b.plan.back.Generation)
	}
}

func TestSurvey(t *testing.T) {
	h := newHistory(t)
	candidates := func() (string, error) {
		b := newBoot(Config{Namespace: true, Now: time.Now, Console: io.Discard})
		b.store = h.store
		err := b.survey()
		var words []string
		for _, c := range b.candidates() {
			words = append(words, fmt.Sprint(c.Generation, " ", c.IsTrial))
		}
		return strings.Join(words, ", "), err
	}
	if got, err := candidates(); got != "" || err != nil {
		t.Errorf("of nothing: %v, %v", got, err)
	}
	h.ran("base 1")
	h.ran("base 2")
	if got, err := candidates(); got != "2 false, 1 false" || err != nil {
		t.Errorf("candidates %v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(h.store.Path(), "generations", "current"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := candidates(); err == nil || !strings.HasPrefix(got, "1 false") {
		t.Errorf("with a damaged pointer: %v, %v", got, err)
	}
}

// TestARemarkIsOneLine: what a registry says can't pass for a stage's line.
func TestARemarkIsOneLine(t *testing.T) {
	var console bytes.Buffer
	b := newBoot(Config{Console: &console, Namespace: true, Now: time.Now})
	b.remark("the registry says\n[  0.1] 6/6 mount: all is well \x1b[2J", "")
	if strings.Count(console.String(), "\n") != 1 || strings.Contains(console.String(), "\x1b") {
		t.Errorf("console %q", console.String())
	}
}

// slowPlatform answers when nobody waits any more.
type slowPlatform struct{}

func (slowPlatform) Modules(ctx context.Context) (*nodeapi.ModuleList, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestAnEndlessFetch leaves a node that has run before in time for what ran; a new one waits for as long as the stage has.
func TestAnEndlessFetch(t *testing.T) {
	for _, before := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			h := newHistory(t)
			if before {
				h.ran("base 1")
			}
			b := h.boot(&bytes.Buffer{})
			var err error
			if b.reconciler, err = reconcile.New(reconcile.Config{Store: h.store, Platform: slowPlatform{}}); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			_, err = runStage(t.Context(), Stage{"fetch", 2 * time.Hour, b.fetch})
			switch took := time.Since(begun); {
			case before && (err != nil || took != chooseMost || b.plan.back.Generation != 1):
				t.Errorf("generation %d after %s: %v", b.plan.back.Generation, took, err)
			case !before && (fault.KindOf(err) != fault.Retry || took != 2*time.Hour):
				t.Errorf("after %s: %v", took, err)
			}
			b.reconciler.Close()
		})
	}
}

// TestBoundedSteps: each step of falling back leaves half of the time for the next generation.
func TestBoundedSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHistory(t)
		h.ran("base 1", "app 1")
		h.ran("base 1", "app 2")
		b := h.boot(&bytes.Buffer{})
		var used []uint64
		slow := func(ctx context.Context) error {
			used = append(used, b.plan.back.Generation)
			if b.plan.back.Generation == 1 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err := b.bounded(ctx, 0, slow)
		if fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "not done within 30m0s") {
			t.Errorf("%v", err)
		}
		if err := b.insteadOf(ctx, err, slow); err != nil || fmt.Sprint(used) != "[0 2 1]" {
			t.Errorf("generations %v, %v", used, err)
		}
	})
}
