package boot

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// newJournal returns the journal of a boot that has just begun.
func newJournal() *journal { return newCourse(io.Discard).voice.journal }

func TestJournalsAreKept(t *testing.T) {
	dir := t.TempDir()
	if list, err := ReadJournals(dir); len(list) != 0 || err != nil {
		t.Errorf("of nothing: %v, %v", list, err)
	}
	for i := range journalsMax + 4 {
		j := newJournal()
		j.doc.BootID = fmt.Sprint("boot ", i)
		j.line("before there was a disk")
		if err := j.open(dir); err != nil {
			t.Fatal(err)
		}
		j.line("after")
		j.change(func(d *Journal) { d.Outcome = HandedOver })
		if err := j.save(); err != nil {
			t.Fatal(err)
		}
		j.close()
	}
	list, err := ReadJournals(dir)
	if err != nil || len(list) != journalsMax {
		t.Fatalf("%d journals, %v", len(list), err)
	}
	for i, j := range list {
		if want := uint64(journalsMax + 4 - i); j.Number != want || j.BootID != fmt.Sprint("boot ", want-1) || len(j.Lines) != 2 || j.Outcome != HandedOver {
			t.Errorf("journal %d: %+v", i, j)
		}
	}

	// One that can't be read is no reason to do without the others, nor to use its number again.
	newest := filepath.Join(dir, bootsName, journalFile(list[0].Number))
	for name, text := range map[string]string{newest: "{", filepath.Join(dir, bootsName, "007.json"): "{}", filepath.Join(dir, bootsName, "x.json"): "{}"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := ReadJournals(dir); err == nil || len(left) != journalsMax-1 || left[0].Number != list[1].Number {
		t.Errorf("with a damaged one: %d, %v", len(left), err)
	}
	j := newJournal()
	defer j.close()
	if err := j.open(dir); err != nil || j.doc.Number != list[0].Number+1 {
		t.Errorf("number %d, %v", j.doc.Number, err)
	}
}

// TestJournalIsBounded: a boot that is tried again for a year fills neither memory nor disk, and keeps
// how it began and how it is now.
func TestJournalIsBounded(t *testing.T) {
	j := newJournal()
	for i := range 5 * linesMax {
		j.line(fmt.Sprint("line ", i, strings.Repeat("x", 2*lineMax)))
		j.stage(StageRecord{Name: fmt.Sprint("stage ", i)})
	}
	d := j.snapshot()
	if len(d.Lines) != linesMax || d.Dropped != 4*linesMax || !strings.HasPrefix(d.Lines[0].Text, "line 0x") || !strings.HasPrefix(d.Lines[linesMax-1].Text, fmt.Sprint("line ", 5*linesMax-1)) {
		t.Errorf("%d lines, %d dropped", len(d.Lines), d.Dropped)
	}
	if len(d.Lines[0].Text) > lineMax+3 || len(d.Stages) != recordsMax || d.Stages[0].Name != "stage 0" || d.Stages[recordsMax-1].Name != fmt.Sprint("stage ", 5*linesMax-1) {
		t.Errorf("%d characters, %d stages", len(d.Lines[0].Text), len(d.Stages))
	}
	// As it is, it fits into what readers take.
	if err := j.open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	defer j.close()
	info, err := j.dir.Root().Stat(journalFile(1))
	if err != nil || info.Size() > journalMax || info.Size() > factsMax {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
}

// TestJournalCutsBetweenLetters.
func TestJournalCutsBetweenLetters(t *testing.T) {
	j := newJournal()
	j.line("x" + strings.Repeat("ü", lineMax))
	if got := j.snapshot().Lines[0].Text; got != "x"+strings.Repeat("ü", lineMax/2-1)+"…" {
		t.Errorf("%q", got[len(got)-10:])
	}
}

// TestAFailedBootIsInItsJournal, so that the next boot and the platform can see it.
func TestAFailedBootIsInItsJournal(t *testing.T) {
	h := newHistory(t)
	b := newBoot(Config{Namespace: true, Now: time.Now, Console: io.Discard})
	b.store = h.store
	if err := b.voice.journal.open(h.store.Path()); err != nil {
		t.Fatal(err)
	}
	defer b.voice.journal.close()
	if list, err := ReadJournals(h.store.Path()); err != nil || len(list) != 1 || list[0].Outcome != UnderWay {
		t.Fatalf("%+v, %v", list, err)
	}
	b.failed(&StageError{"fetch", fault.New(fault.Refuse, fault.Platform, "", "one\ntwo")}, InRecovery)
	list, err := ReadJournals(h.store.Path())
	if err != nil || list[0].Outcome != InRecovery || list[0].Stage != "fetch" || list[0].Failure != "boot stage fetch: one; two" {
		t.Errorf("%+v, %v", list, err)
	}
}
