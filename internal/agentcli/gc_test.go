package agentcli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/retain"
	"github.com/powernode/powernode-agent/internal/store"
)

// pastOf makes a store with so many generations, all good, the last of them current.
func pastOf(t *testing.T, count int) string {
	t.Helper()
	dir := t.TempDir()
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for i := range count {
		image := bytes.Repeat(fmt.Append(nil, "root ", i), 1000)
		at := time.Date(2026, 11, 20, 4, i, 0, 0, time.UTC)
		n, err := st.PutGeneration(store.Generation{RootDigest: fsverity.SumBytes(image), Cause: "update", Level: "checked", Created: at}, bytes.NewReader(image))
		if err == nil {
			err = st.Pass(n, at, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// runAgent runs a command and returns what it printed.
func runAgent(t *testing.T, format cli.Format, command func(*cli.App) *cobra.Command, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	app := &cli.App{In: strings.NewReader(""), Out: &out, Err: &out, Format: format, Getenv: func(string) string { return "" }}
	cmd := command(app)
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// TestGCCutOff: what a collection removed is said also where it didn't come to its end.
func TestGCCutOff(t *testing.T) {
	dir := pastOf(t, 8)
	trial := filepath.Join(dir, "generations", "3.trial")
	if err := errors.Join(os.Remove(trial), os.MkdirAll(filepath.Join(trial, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	text, err := runAgent(t, cli.JSON, gcCommand, "--state", dir)
	if err == nil || !strings.Contains(err.Error(), "3.trial") {
		t.Fatal(err)
	}
	var doc gcDoc
	if err := json.Unmarshal([]byte(text), &doc); err != nil || len(doc.Generations) != 2 || doc.Generations[0].Generation != 1 {
		t.Errorf("%s, %v", text, err)
	}
}

func TestGC(t *testing.T) {
	dir := pastOf(t, 6)
	gone := filepath.Join(dir, "upper", fsverity.SumBytes([]byte("gone")).String()+".checked", "upper", "etc")
	if err := os.MkdirAll(gone, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(gone, "local"), make([]byte, 50_000), 0o600); err != nil {
		t.Fatal(err)
	}
	var docs [2]gcDoc
	for i, args := range [][]string{{"--state", dir, "--dry-run"}, {"--state", dir}} {
		text, err := runAgent(t, cli.JSON, gcCommand, args...)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(text), &docs[i]); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	}
	for _, d := range docs {
		if len(d.Generations) != 3 || d.Objects.Count != 3 || d.FreedBytes < 3*6000+50_000 || d.Uppers.Count != 1 || len(d.Kept) != 3 {
			t.Errorf("%+v", d)
		}
	}
	if !docs[0].DryRun || docs[1].DryRun || docs[0].FreedBytes != docs[1].FreedBytes {
		t.Errorf("%+v\n%+v", docs[0], docs[1])
	}
	if _, err := os.Stat(filepath.Dir(filepath.Dir(gone))); !os.IsNotExist(err) {
		t.Errorf("the writable layer: %v", err)
	}
	text, err := runAgent(t, cli.Table, gcCommand, "--state", dir, "--keep", "1", "--dry-run")
	if err != nil || !strings.Contains(text, "would be freed:") || !strings.Contains(text, "1 of 3") || !strings.Contains(text, "would be removed") || !strings.Contains(text, "current, the newest") {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestGCBeneath keeps the image that a writable layer has to be settled by, and nothing for a layer that goes.
func TestGCBeneath(t *testing.T) {
	dir := pastOf(t, 7)
	root := func(n int) string {
		return fsverity.SumBytes(bytes.Repeat(fmt.Append(nil, "root ", n-1), 1000)).String()
	}
	for n, over := range map[int]int{7: 2, 1: 3} {
		layer := filepath.Join(dir, "upper", root(n)+".checked")
		record := fmt.Appendf(nil, `{"over": %q, "roots": [{"root_digest": %q, "turn": 1}]}`, root(over), root(n))
		if err := errors.Join(os.MkdirAll(filepath.Join(layer, "upper"), 0o700), os.WriteFile(filepath.Join(layer, "record.json"), record, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		text, err := runAgent(t, cli.Table, gcCommand, "--state", dir)
		if err != nil || !strings.Contains(text, "a writable layer was used over it") || !strings.Contains(text, "3 of 7") && !strings.Contains(text, "0 of 4") {
			t.Errorf("%v\n%s", err, text)
		}
	}
	if names, err := os.ReadDir(filepath.Join(dir, "upper")); err != nil || len(names) != 1 || !strings.HasPrefix(names[0].Name(), root(7)) {
		t.Errorf("%v, %v", names, err)
	}
}

func TestGCRefuses(t *testing.T) {
	dir := pastOf(t, 6)
	if _, err := runAgent(t, cli.Table, gcCommand, "--state", dir, "--keep", "0"); fault.KindOf(err) != fault.Refuse {
		t.Errorf("keep none: %v", err)
	}
	empty := t.TempDir()
	for _, args := range [][]string{{"--state", empty}, {"--state", empty, "--dry-run"}, {"--state", empty + "/none"}} {
		if _, err := runAgent(t, cli.Table, gcCommand, args...); fault.KindOf(err) != fault.Refuse || fault.HintOf(err) == "" {
			t.Errorf("%q: %v", args, err)
		}
	}
	if left, err := os.ReadDir(empty); err != nil || len(left) != 0 {
		t.Errorf("made in a directory that is no store: %v, %v", left, err)
	}
	lock, err := reconcile.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if _, err := runAgent(t, cli.Table, gcCommand, "--state", dir); fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "only one change at a time") {
		t.Errorf("beside a change: %v", err)
	}
	if _, err := runAgent(t, cli.Table, gcCommand, "--state", dir, "--dry-run"); err != nil {
		t.Errorf("a dry run beside a change: %v", err)
	}
}

// TestCollector: the service collects once for each generation that becomes current and works.
func TestCollector(t *testing.T) {
	dir := pastOf(t, 6)
	var log strings.Builder
	c := &collector{upkeep: upkeep{stateDir: dir, log: slog.New(slog.NewTextHandler(&log, nil))}}
	left := func(want ...uint64) {
		t.Helper()
		if done, err := c.collect(t.Context()); done || err != nil {
			t.Errorf("%t, %v", done, err)
		}
		st, err := store.Open(dir, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		if got, err := st.Numbers(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v are left, want %v; %v", got, want, err)
		}
	}
	change := func(do func(st *store.Store, n uint64) error) {
		t.Helper()
		st, err := store.Open(dir, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		image := fmt.Append(nil, "another root ", time.Now())
		n, err := st.PutGeneration(store.Generation{RootDigest: fsverity.SumBytes(image)}, bytes.NewReader(image))
		if err == nil {
			err = do(st, n)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	lock, err := reconcile.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	left(1, 2, 3, 4, 5, 6)
	lock.Unlock()
	left(4, 5, 6)
	if !strings.Contains(log.String(), "generations=3") {
		t.Errorf("the log says %s", log.String())
	}
	change(func(st *store.Store, n uint64) error { return st.Stage(n) })
	left(4, 5, 6, 7)
	change(func(st *store.Store, n uint64) error { return st.Pass(n, time.Now(), nil) })
	left(6, 7, 8)
	change(func(st *store.Store, n uint64) error { return nil })
	left(6, 7, 8, 9)
	if err := os.WriteFile(filepath.Join(dir, "generations", "current"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.collect(t.Context()); fault.KindOf(err) != fault.Broken {
		t.Errorf("%v", err)
	}
}

func TestGenerations(t *testing.T) {
	dir := pastOf(t, 6)
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)
	for _, err := range []error{
		st.PutTrial(store.Trial{Generation: 2, Attempts: 1, Failed: "failed: nginx.service", FailedAt: at}),
		st.PutLeft(store.Left{Generation: 3, For: 4, At: at}), st.PutLive(store.Live{Generation: 4, From: 3, At: at}),
		os.WriteFile(filepath.Join(dir, "generations", "1.json"), []byte("x"), 0o600), st.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if text, err := runAgent(t, cli.Table, generationsCommand, "--state", dir, "pin", "3", "--note", "before the move"); err != nil || text != "generation 3 is pinned\n" {
		t.Errorf("%q, %v", text, err)
	}
	read := func() generationsDoc {
		t.Helper()
		text, err := runAgent(t, cli.JSON, generationsCommand, "--state", dir)
		if err != nil {
			t.Fatal(err)
		}
		var doc generationsDoc
		if err := json.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		return doc
	}
	doc := read()
	if doc.Current != 6 || doc.Previous != 5 || doc.Running != 0 || doc.RollbackTo != 5 || len(doc.Generations) != 6 || len(doc.Remarks) != 1 {
		t.Errorf("%+v", doc)
	}
	states := make(map[uint64]retain.State)
	kept := make(map[uint64]bool)
	for _, g := range doc.Generations {
		states[g.Generation], kept[g.Generation] = g.Health.State, g.Kept
		if g.Modules == nil || len(g.KeptBecause) == 0 {
			t.Errorf("%+v", g)
		}
	}
	if states[1] != retain.Damaged || states[2] != retain.Failed || states[6] != retain.Good || kept[1] || kept[2] || !kept[3] {
		t.Errorf("%v, kept %v", states, kept)
	}
	if three := doc.of(3); three.Pin == nil || three.Pin.Note != "before the move" || three.LeftFor != 4 || three.Cause != "update" || doc.of(4).LiveSince != at {
		t.Errorf("%+v", three)
	}
	text, err := runAgent(t, cli.Table, generationsCommand, "--state", dir)
	for _, want := range []string{"failed: nginx.service", "left for 4, pinned (before the move)", "gc would remove it", "a rollback leads to:", "generation 5", "1.json is damaged", "current"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if err != nil {
		t.Error(err)
	}
	if text, err := runAgent(t, cli.JSON, generationsCommand, "--state", dir, "unpin", "3"); err != nil || strings.Contains(text, "pin\"") || !strings.Contains(text, `"generation": 3`) {
		t.Errorf("%s, %v", text, err)
	}
	if doc := read(); doc.of(3).Pin != nil || doc.of(3).Kept {
		t.Errorf("%+v", doc.of(3))
	}
	// A pointer that can't be read is told, and the rest is shown.
	if err := os.WriteFile(filepath.Join(dir, "generations", "current"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if doc := read(); doc.Current != 0 || len(doc.Remarks) != 2 || len(doc.Generations) != 6 {
		t.Errorf("%+v", doc)
	}
}

func TestPinRefuses(t *testing.T) {
	dir := pastOf(t, 2)
	for _, args := range [][]string{{"pin", "9"}, {"pin", "0"}, {"pin", "x"}, {"pin", "-1"}, {"unpin", "1"}, {"pin", "1", "--note", "a\nb"}} {
		if _, err := runAgent(t, cli.Table, generationsCommand, append([]string{"--state", dir}, args...)...); err == nil {
			t.Errorf("%q", args)
		}
	}
	empty := t.TempDir()
	if _, err := runAgent(t, cli.Table, generationsCommand, "--state", empty, "pin", "1"); fault.KindOf(err) != fault.Refuse {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(empty); err != nil || len(left) != 0 {
		t.Errorf("made in a directory that is no store: %v, %v", left, err)
	}
}
