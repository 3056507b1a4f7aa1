package task

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

func openJournal(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := OpenJournal(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

var attach = Task{
	ID: "8a1c", Lease: "0f", Kind: nodeapi.TaskAttach, Options: json.RawMessage(`{"modules":["nginx"]}`), Attempt: 1,
	CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), RequestedBy: "ops", Deadline: time.Hour,
}

func TestJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "tasks")
	j := openJournal(t, dir)
	records := []Record{
		{Version: 1, Seq: 1, Task: attach, Phase: Accepted},
		{
			Version: 1, Seq: 2, Task: Task{ID: "9", Lease: "1", Kind: "gc", Attempt: 2}, Phase: Done, Runs: 1, Boot: "b", EndedAt: attach.CreatedAt,
			Outcome: &Outcome{Code: "FAILED", Error: "it didn't", Result: json.RawMessage(`{"a":[[[1]]]}`)}, Output: "a\n", OutputOffset: 7,
		},
	}
	for _, r := range records {
		if err := j.Save(r); err != nil {
			t.Fatal(err)
		}
	}
	got, err := openJournal(t, dir).Load()
	if d := cmp.Diff(records, got); d != "" || err != nil {
		t.Error(err, d)
	}
	// Of a damaged record it is known that there was a task.
	if err := os.WriteFile(filepath.Join(dir, "9.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "..json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err = j.Load()
	if len(got) != 2 || err == nil || got[1].Task.ID != "9" || got[1].Phase != Begun || got[1].Task.Kind != "" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := j.Remove("9"); err != nil {
		t.Error(err)
	}
	if err := j.Remove("9"); err != nil {
		t.Error("removed twice:", err)
	}
	if err := j.Save(Record{Task: Task{ID: "../x"}}); err == nil {
		t.Error("a path was taken for an ID")
	}
	if got, err := j.Load(); len(got) != 1 || err != nil {
		t.Error(got, err)
	}
}

// TestNotes: what a handler has settled is there after a restart, belongs to its task alone, and goes with it.
func TestNotes(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	if err := j.Save(Record{Seq: 1, Task: attach, Phase: Accepted}); err != nil {
		t.Fatal(err)
	}
	type note struct {
		N int `json:"n"`
	}
	var n note
	if ok, err := j.Noted(attach.ID, &n); ok || err != nil {
		t.Error(ok, err)
	}
	for _, v := range []int{1, 2} {
		if err := j.Note(attach.ID, note{v}); err != nil {
			t.Fatal(err)
		}
	}
	j = openJournal(t, dir)
	if ok, err := j.Noted(attach.ID, &n); !ok || err != nil || n.N != 2 {
		t.Error(ok, err, n)
	}
	if ok, err := j.Noted("other", &n); ok || err != nil {
		t.Error(ok, err)
	}
	if got, err := j.Load(); len(got) != 1 || err != nil {
		t.Error(got, err)
	}
	if err := j.Note("../x", note{}); err == nil {
		t.Error("a path was taken for an ID")
	}
	if err := j.Note(attach.ID, strings.Repeat("x", maxNote)); err == nil {
		t.Error("a note has no bound")
	}
	if err := os.WriteFile(filepath.Join(dir, attach.ID+noteSuffix), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if ok, err := j.Noted(attach.ID, &n); ok || err == nil {
		t.Error("a damaged note is none:", ok)
	}
	if err := j.Remove(attach.ID); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); len(entries) > 0 || err != nil {
		t.Error(entries, err)
	}
}

// TestLargestRecord: what the wire allows fits on the disk, however much of it has to be escaped.
func TestLargestRecord(t *testing.T) {
	j := openJournal(t, t.TempDir())
	object := json.RawMessage(`{"a":"` + strings.Repeat("<", nodeapi.MaxTaskOptions-8) + `"}`)
	r := Record{
		Seq: 1, Task: attach, Phase: Done, Runs: 1, Output: strings.Repeat("\x01", nodeapi.MaxTaskOutput),
		Outcome: &Outcome{Error: strings.Repeat("\x02", nodeapi.MaxTaskMessage), Result: object},
	}
	r.Task.Options = object
	if err := j.Save(r); err != nil {
		t.Fatal(err)
	}
	if got, err := j.Load(); err != nil || len(got) != 1 || got[0].Output != r.Output {
		t.Error(len(got), err)
	}
}

func TestCheck(t *testing.T) {
	if err := attach.Check(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(t *Task){
		"no ID":         func(t *Task) { t.ID = "" },
		"a path":        func(t *Task) { t.ID = "a/b" },
		"hidden":        func(t *Task) { t.ID = ".a" },
		"a quote":       func(t *Task) { t.ID = "a\"b" },
		"a query":       func(t *Task) { t.ID = "a?b" },
		"long":          func(t *Task) { t.ID = strings.Repeat("a", 129) },
		"no lease":      func(t *Task) { t.Lease = "" },
		"lines":         func(t *Task) { t.Lease = "a\nb" },
		"no kind":       func(t *Task) { t.Kind = "" },
		"attempt":       func(t *Task) { t.Attempt = 0 },
		"deadline":      func(t *Task) { t.Deadline = -1 },
		"a list":        func(t *Task) { t.Options = json.RawMessage(`[]`) },
		"no JSON":       func(t *Task) { t.Options = json.RawMessage(`{`) },
		"large options": func(t *Task) { t.Options = json.RawMessage(`{"a":"` + strings.Repeat("x", 64<<10) + `"}`) },
		"a long name":   func(t *Task) { t.RequestedBy = strings.Repeat("x", 2000) },
	} {
		bad := attach
		if spoil(&bad); bad.Check() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestJournalFaults: at every labelled operation of a task's life, the disk has the record before or the one after.
func TestJournalFaults(t *testing.T) {
	life := []Record{
		{Seq: 1, Task: attach, Phase: Accepted},
		{Seq: 1, Task: attach, Phase: Begun, Runs: 1, Boot: "b"},
		{Seq: 1, Task: attach, Phase: Done, Runs: 1, Boot: "b", Outcome: &Outcome{Success: true}},
		{Seq: 1, Task: attach, Phase: Settled, Runs: 1, Boot: "b", Outcome: &Outcome{Success: true}},
	}
	phases := []Phase{"", Accepted, Begun, Done, Settled, ""}
	s := durabletest.Scenario{
		Run: func(dir string, hook durable.Hook) error {
			j, err := OpenJournal(dir, hook)
			if err != nil {
				return err
			}
			defer j.Close()
			for _, r := range life {
				if err := j.Save(r); err != nil {
					return err
				}
			}
			return j.Remove(attach.ID)
		},
		Check: func(t testing.TB, dir, op string, _ error) {
			got, err := openJournal(t, dir).Load()
			if err != nil || len(got) > 1 {
				t.Fatal(got, err)
			}
			var phase Phase
			if len(got) == 1 {
				phase = got[0].Phase
			}
			// The label says which record was under way.
			label, step, _ := strings.Cut(strings.TrimPrefix(op, "task-"), ":")
			i := slices.Index(phases, Phase(label))
			if label == "forgotten" || op == "" {
				i = len(phases) - 1
			}
			if op == "" && phase != "" || phase != phases[i] && phase != phases[max(i-1, 0)] || step == "write" && phase != phases[i-1] {
				t.Errorf("after a fault at %q the record is %q", op, phase)
			}
		},
	}
	t.Run("ENOSPC", func(t *testing.T) { s.FailEach(t, unix.ENOSPC) })
	t.Run("EIO", func(t *testing.T) { s.FailEach(t, unix.EIO) })
	t.Run("kill", s.KillEach)
	t.Run("power cut", s.PowerCutEach)
}

func FuzzRecord(f *testing.F) {
	for _, r := range []Record{
		{Seq: 1, Task: attach, Phase: Begun, Runs: 2, Boot: "b"},
		{Seq: 1, Task: attach, Phase: Done, Outcome: &Outcome{Success: true, Result: json.RawMessage(`{}`)}, Output: "x"},
	} {
		data, err := r.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRecord(data, attach.ID)
		if err != nil {
			return
		}
		again, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeRecord(again, attach.ID)
		if err != nil {
			t.Fatalf("%s became %s: %v", data, again, err)
		}
		if twice, err := back.encode(); err != nil || !bytes.Equal(again, twice) {
			t.Errorf("%s, then %s: %v", again, twice, err)
		}
		// What a Desk makes of it at least comes to rest.
		d := NewDesk(time.Unix(0, 0), Settings{Handlers: modelHandlers, Boot: "c", Chance: func() float64 { return 0 }}, []Record{r})
		for range 10 {
			switch a := d.Next(time.Unix(1, 0)); a.Do {
			case Wait:
				return
			case Save:
				d.Saved(time.Unix(1, 0), r.Task.ID, false, nil)
			default:
			}
		}
		t.Errorf("%s never comes to rest", data)
	})
}
