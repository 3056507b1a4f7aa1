package event

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

func open(t testing.TB, dir string, o Options) *Queue {
	t.Helper()
	q, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func put(t testing.TB, q *Queue, events ...Event) {
	t.Helper()
	for _, e := range events {
		if err := q.Put(e); err != nil {
			t.Fatal(err)
		}
	}
}

func next(t testing.TB, q *Queue, most int) Batch {
	t.Helper()
	b, err := q.Next(most)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func told(t testing.TB, q *Queue, b Batch) {
	t.Helper()
	if err := q.Told(b); err != nil {
		t.Fatal(err)
	}
}

func texts(b Batch) string {
	var all []string
	for _, e := range b.Events {
		if e.Kind == DroppedKind {
			var counts []string
			for _, name := range slices.Sorted(maps.Keys(e.Fields)) {
				counts = append(counts, name+e.Fields[name])
			}
			all = append(all, "dropped:"+strings.Join(counts, ","))
			continue
		}
		all = append(all, e.Text)
	}
	return strings.Join(all, " ")
}

func info(text string) Event { return Event{Kind: "test", Text: text} }

func with(s nodeapi.Severity, text string) Event {
	return Event{Kind: "test", Severity: s, Text: text}
}

func audit(text string) Event { return Event{Kind: AuditKind, Text: text, Audit: true} }

// TestQueue: what is put is told in order, again with the same IDs until it has arrived, also by another process.
func TestQueue(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	clock := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	q := open(t, dir, Options{Now: func() time.Time { return clock }})
	if b := next(t, q, 100); len(b.Events) != 0 || b.More {
		t.Errorf("an empty queue has %+v", b)
	}
	put(t, q, info("a"), with(nodeapi.SeverityError, "b"), Event{Kind: "test", Fields: map[string]string{"disk": "vda\n\x1b[1m", "Bad Name": "x"}})
	select {
	case <-q.News():
	default:
		t.Error("no news")
	}
	if n, bytes, err := q.Size(); n != 3 || bytes < 400 || bytes > 900 || err != nil {
		t.Errorf("%d events of %d bytes, %v", n, bytes, err)
	}
	first := next(t, q, 2)
	if texts(first) != "a b" || !first.More || first.Events[0].At != clock {
		t.Errorf("first %+v", first)
	}
	again := open(t, dir, Options{})
	second := next(t, again, 100)
	if texts(second) != "a b test" || second.More || second.Events[0].ID != first.Events[0].ID || second.Events[1].ID != first.Events[1].ID {
		t.Errorf("again %+v, first %+v", second, first)
	}
	if f := second.Events[2].Fields; len(f) != 1 || f["disk"] != `vda; \x1b[1m` {
		t.Errorf("fields %q", f)
	}
	put(t, q, info("c"))
	told(t, again, second)
	if b := next(t, q, 100); texts(b) != "c" {
		t.Errorf("left %q", texts(b))
	}
	told(t, q, next(t, q, 100))
	put(t, q, info("d"))
	told(t, again, second) // the same again does nothing
	if b := next(t, q, 100); texts(b) != "d" {
		t.Errorf("left %q", texts(b))
	}
}

// TestBounds: what is least important goes first, then what is oldest; it is counted, and told once.
func TestBounds(t *testing.T) {
	q := open(t, t.TempDir(), Options{Count: 4})
	put(t, q, audit("A"), info("i1"), with(nodeapi.SeverityError, "e1"), info("i2"))
	put(t, q, info("i3"))
	if b := next(t, q, 100); texts(b) != "A e1 i2 i3 dropped:info1" {
		t.Errorf("after a fifth: %q", texts(b))
	}
	put(t, q, with(nodeapi.SeverityWarning, "w1"), with(nodeapi.SeverityError, "e2"), with(nodeapi.SeverityError, "e3"))
	b := next(t, q, 100)
	if texts(b) != "A e1 e2 e3 dropped:info1" {
		t.Errorf("what is told stays as it is until it has arrived: %q", texts(b))
	}
	put(t, q, info("i4"), audit("B"))
	told(t, q, b)
	// e1 had to go for B while the batch was on its way: it was told, and counted.
	b = next(t, q, 100)
	if texts(b) != "B dropped:error1,info3,warning1" {
		t.Errorf("then %q", texts(b))
	}
	if e := b.Events[len(b.Events)-1]; e.Severity != nodeapi.SeverityWarning || !strings.HasPrefix(e.Text, "5 events") {
		t.Errorf("%+v", e)
	}
	told(t, q, b)
	if b := next(t, q, 100); len(b.Events) != 0 {
		t.Errorf("left %q", texts(b))
	}
	for i := range 6 {
		put(t, q, audit(fmt.Sprint(i)))
	}
	b = next(t, q, 100)
	if texts(b) != "2 3 4 5 dropped:audit2" || b.Events[4].Severity != nodeapi.SeverityError {
		t.Errorf("of audit records alone: %+v", b)
	}
}

// TestBoundOfBytes: a few large ones count as much as many small ones.
func TestBoundOfBytes(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, Options{Bytes: 8 << 10})
	for i := range 30 {
		put(t, q, info(strings.Repeat("x", 40*i)), audit(fmt.Sprint(i)))
	}
	size := int64(0)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if it, ok := parseName(e.Name()); ok {
			stat, err := e.Info()
			if err != nil || stat.Size() != it.size {
				t.Errorf("%s has %v bytes: %v", e.Name(), stat, err)
			}
			size += it.size
		}
	}
	if size > 8<<10 {
		t.Errorf("%d bytes", size)
	}
	audits := 0
	for _, e := range next(t, q, 100).Events {
		if e.Kind == AuditKind {
			audits++
		}
	}
	if audits != 30 {
		t.Errorf("%d audit records of 30 are left", audits)
	}
	put(t, open(t, dir, Options{Bytes: 10}), info("too large for any room"))
	if b := next(t, q, 100); strings.Contains(texts(b), "too large") {
		t.Errorf("left: %q", texts(b))
	}
}

// TestRandomly compares a queue with a list that does the same in a simple way.
func TestRandomly(t *testing.T) {
	type kept struct {
		rank rank
		text string
	}
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 1))
		limit := 1 + rng.IntN(12)
		q := open(t, t.TempDir(), Options{Count: limit})
		var list []kept
		all, arrived, lost := 0, 0, 0
		tell := func(most int, arrives bool) {
			b := next(t, q, most)
			n := 0
			for _, e := range b.Events {
				if e.Kind != DroppedKind {
					if e.Text != list[n].text {
						t.Fatalf("seed %d: told %q, want %q", seed, e.Text, list[n].text)
					}
					n++
					continue
				}
				for _, f := range e.Fields {
					k, err := strconv.Atoi(f)
					if err != nil {
						t.Fatal(err)
					}
					if arrives {
						lost += k
					}
				}
			}
			if arrives {
				told(t, q, b)
				list, arrived = list[n:], arrived+n
			}
		}
		for i := range 120 {
			if rng.IntN(6) == 0 {
				tell(1+rng.IntN(20), rng.IntN(2) == 0)
				continue
			}
			e := []Event{info(""), with(nodeapi.SeverityWarning, ""), with(nodeapi.SeverityError, ""), audit("")}[rng.IntN(4)]
			e.Text = fmt.Sprint(i)
			put(t, q, e)
			all++
			if list = append(list, kept{e.rank(), e.Text}); len(list) > limit {
				worst := 0
				for j, k := range list {
					if k.rank < list[worst].rank {
						worst = j
					}
				}
				list = slices.Delete(list, worst, worst+1)
			}
		}
		tell(100, true)
		tell(100, true)
		if all != arrived+lost || len(list) > 0 {
			t.Errorf("seed %d: of %d events %d arrived and %d were given up; left %v", seed, all, arrived, lost, list)
		}
	}
}

// TestDamage: a file that can't be read costs itself, and is counted by its name.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, Options{})
	put(t, q, info("a"), audit("b"), info("c"))
	names, err := filepath.Glob(filepath.Join(dir, "*-3-*.json"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	if err := os.WriteFile(names[0], []byte(`{"version":1,"event":{"id":"x"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "README"), []byte("not ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b := next(t, q, 100); texts(b) != "a c dropped:audit1" {
		t.Errorf("told %q", texts(b))
	}
	if err := os.WriteFile(filepath.Join(dir, droppedName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := next(t, q, 1)
	if texts(b) != "a" {
		t.Errorf("told %q", texts(b))
	}
	if err := q.Refused(b); err != nil {
		t.Fatal(err)
	}
	if b := next(t, q, 100); texts(b) != "c dropped:info1" {
		t.Errorf("told %q", texts(b))
	}
}

// TestLostCount: what couldn't even be counted on the disk is counted when it can be.
func TestLostCount(t *testing.T) {
	full := true
	q := open(t, t.TempDir(), Options{Hook: func(op string) error {
		if full && strings.HasSuffix(op, ":write") {
			return unix.ENOSPC
		}
		return nil
	}})
	for range 3 {
		if err := q.Put(audit("x")); err == nil {
			t.Error("a full disk took an event")
		}
	}
	full = false
	put(t, q, info("y"))
	if b := next(t, q, 100); texts(b) != "y dropped:audit3" {
		t.Errorf("told %q", texts(b))
	}
	if err := q.Put(Event{Kind: "Bad Kind"}); err == nil {
		t.Error("a bad kind was taken")
	}
}

// TestProcesses: several have the same queue, and none loses what another puts in.
func TestProcesses(t *testing.T) {
	// One that puts in all that it has leaves the others hardly a turn, which is long on a slow disk.
	dir, patient := t.TempDir(), Options{lockTime: 5 * time.Minute}
	var all sync.WaitGroup
	for p := range 4 {
		q := open(t, dir, patient)
		all.Go(func() {
			for i := range 20 {
				if err := q.Put(info(fmt.Sprintf("%d-%d", p, i))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	seen := map[string]bool{}
	q := open(t, dir, patient)
	take := func() int {
		b := next(t, q, 7)
		for _, e := range b.Events {
			if seen[e.Text] {
				t.Errorf("%s was told again after it had arrived", e.Text)
			}
			seen[e.Text] = true
		}
		told(t, q, b)
		return len(b.Events)
	}
	for range 5 {
		take()
	}
	all.Wait()
	for take() > 0 {
	}
	if len(seen) != 80 {
		t.Errorf("%d events of 80", len(seen))
	}
}

func TestKeyedID(t *testing.T) {
	a, err := Audit{Who: "ops", Task: "t1", Command: "attach nginx", Result: "complete", Key: "k"}.Event().wire(time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	b, err := Audit{Command: "x", Failed: true, Key: "k"}.Event().wire(time.Unix(2, 0))
	if err != nil {
		t.Fatal(err)
	}
	if a.ID != b.ID || a.ID[14] != '8' || a.Text != "ops: attach nginx: complete" || b.Text != "somebody: x: " || b.Severity != nodeapi.SeverityWarning {
		t.Errorf("%+v, %+v", a, b)
	}
	if x, y := newID(""), newID(""); x == y || !isUUID(x) || x[14] != '4' {
		t.Error(x, y)
	}
}

// TestFaults: at every labelled operation of putting into a full queue, of telling, and of telling what was given up.
func TestFaults(t *testing.T) {
	fill := func(t testing.TB, dir string, events ...Event) {
		t.Helper()
		q, err := Open(dir, Options{Count: 3})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		put(t, q, events...)
	}
	run := func(do func(q *Queue) error) func(dir string, hook durable.Hook) error {
		return func(dir string, hook durable.Hook) error {
			q, err := Open(dir, Options{Count: 3, Hook: hook})
			if err != nil {
				return err
			}
			defer q.Close()
			return do(q)
		}
	}
	left := func(t testing.TB, dir string) string {
		t.Helper()
		q, err := Open(dir, Options{Count: 3})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		first := next(t, q, 100)
		second := next(t, q, 100)
		for i, e := range first.Events {
			if second.Events[i].ID != e.ID {
				t.Errorf("told again as another: %+v, %+v", e, second.Events[i])
			}
		}
		return texts(first)
	}
	scenarios := map[string]struct {
		s    durabletest.Scenario
		want []string // the last is that of the whole work
	}{
		"put into a full queue": {durabletest.Scenario{
			Setup: func(t testing.TB, dir string) { fill(t, dir, audit("A"), info("i1"), info("i2")) },
			Run:   run(func(q *Queue) error { return q.Put(with(nodeapi.SeverityError, "E")) }),
		}, []string{"A i1 i2", "A i1 i2 dropped:info1", "A i1 i2 E dropped:info1", "A i2 E dropped:info1"}},
		"tell": {durabletest.Scenario{
			Setup: func(t testing.TB, dir string) { fill(t, dir, audit("A"), info("i1"), info("i2")) },
			Run: run(func(q *Queue) error {
				b, err := q.Next(2)
				if err == nil {
					err = q.Told(b)
				}
				return err
			}),
		}, []string{"A i1 i2", "i1 i2", "i2"}},
		"tell what was given up": {durabletest.Scenario{
			Setup: func(t testing.TB, dir string) { fill(t, dir, audit("A"), info("i1"), info("i2"), info("i3")) },
			Run: run(func(q *Queue) error {
				b, err := q.Next(100)
				if err == nil {
					err = q.Put(audit("B"))
				}
				if err == nil {
					err = q.Told(b)
				}
				return err
			}),
		}, []string{
			"A i2 i3 dropped:info1", "A i2 i3 B dropped:info1", "A i3 B dropped:info1", "i3 B dropped:info1", "B dropped:info1", "B dropped:info1",
		}},
	}
	for name, c := range scenarios {
		c.s.Check = func(t testing.TB, dir, op string, _ error) {
			got := left(t, dir)
			if op == "" && got != c.want[len(c.want)-1] || !slices.Contains(c.want, got) {
				t.Errorf("after a fault at %q: %q, want one of %q", op, got, c.want)
			}
		}
		t.Run(name, func(t *testing.T) {
			t.Run("ENOSPC", func(t *testing.T) { c.s.FailEach(t, unix.ENOSPC) })
			t.Run("EIO", func(t *testing.T) { c.s.FailEach(t, unix.EIO) })
			t.Run("kill", c.s.KillEach)
			t.Run("power cut", c.s.PowerCutEach)
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":1,"event":{"id":"01234567-89ab-4cde-8f01-23456789abcd","at":"2026-01-01T00:00:00Z","kind":"a.b","severity":"info","text":"x","fields":{"a":"b"}}}`))
	f.Add([]byte(`{"version":1,"event":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decode(data)
		if err == nil && (!isUUID(e.ID) || e.Text == "" || len(e.Text) > nodeapi.MaxEventText || len(e.Fields) > nodeapi.MaxEventFields) {
			t.Errorf("%+v", e)
		}
		if d := decodeDropped(data); d.Version != droppedVersion {
			t.Errorf("%+v", d)
		}
	})
}

func FuzzParseName(f *testing.F) {
	f.Add("0000000000000001-3-200-0123abcd.json")
	f.Fuzz(func(t *testing.T, name string) {
		if it, ok := parseName(name); ok && (it.name() != name || it.rank < 0 || it.rank >= ranks || it.size < 0) {
			t.Errorf("%q: %+v", name, it)
		}
	})
}

func FuzzWire(f *testing.F) {
	f.Add("kind", "text", "name", "value")
	f.Fuzz(func(t *testing.T, kind, text, name, value string) {
		w, err := Event{Kind: kind, Text: text, Fields: map[string]string{name: value}}.wire(time.Unix(0, 0))
		if err == nil {
			err = check(w)
		} else if isWord(kind, nodeapi.MaxEventKind) {
			t.Error(err)
		} else {
			return
		}
		if err != nil {
			t.Error(err)
		}
	})
}
