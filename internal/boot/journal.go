package boot

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// Outcome says how a boot went, as far as its journal knows.
type Outcome string

// The outcomes. A boot that ended while it was under way, by a power cut, stays so for ever.
const (
	UnderWay   Outcome = "under way"
	InRecovery Outcome = "in recovery"
	HandedOver Outcome = "handed over"
	Ended      Outcome = "ended"
)

// Journal is what a boot leaves of itself, on the disk and in its facts, however it goes.
type Journal struct {
	// Number counts the boots of this disk from 1; 0 where it couldn't be written to.
	Number uint64 `json:"number"`
	// BootID is the kernel's, the same as in the booted system.
	BootID string `json:"boot_id"`
	// Mode is "machine", "sysroot" or "namespace".
	Mode  Mode      `json:"mode"`
	Agent string    `json:"agent_version"`
	Begun time.Time `json:"begun"`
	// StartedMillis is when the agent began, and EndedMillis when it handed over, on the clock of Lines.
	StartedMillis int64   `json:"started_ms"`
	EndedMillis   int64   `json:"ended_ms,omitempty"`
	Outcome       Outcome `json:"outcome"`
	// Generation is the one that the boot came to; 0 for none.
	Generation uint64 `json:"generation,omitempty"`
	// Stage and Failure say where and why the boot went into recovery, or ended, the last time.
	Stage   string        `json:"stage,omitempty"`
	Failure string        `json:"failure,omitempty"`
	Stages  []StageRecord `json:"stages"`
	// Lines are what the boot said on the console, the first and the last of them; Dropped is how many
	// are missing between.
	Lines   []Line `json:"lines"`
	Dropped int    `json:"dropped_lines,omitempty"`
}

// Line is one line of a boot on the console.
type Line struct {
	// Millis is the time since power-on in milliseconds; in namespaces, since the boot began.
	Millis int64  `json:"at_ms"`
	Text   string `json:"text"`
}

// The bounds of journals: lines of one, characters of a line, stages, journals of a disk, and bytes
// of one when it is read.
const (
	linesMax    = 400
	linesFirst  = 200
	lineMax     = 1000
	recordsMax  = 200
	journalsMax = 16
	journalMax  = 4 << 20
)

const bootsName = "boots"

// journal is a Journal that is being written.
type journal struct {
	mu  sync.Mutex
	doc Journal
	// clock is the time since power-on.
	clock func() time.Duration
	dir   *durable.Dir // nil until there is a disk
}

// line keeps one line.
func (j *journal) line(text string) {
	if len(text) > lineMax {
		text = strings.ToValidUTF8(text[:lineMax], "") + "…" // the cut may be in the middle of a letter
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	d := &j.doc
	d.Lines = append(d.Lines, Line{j.clock().Milliseconds(), text})
	if len(d.Lines) > linesMax {
		d.Lines = slices.Delete(d.Lines, linesFirst, linesFirst+1)
		d.Dropped++
	}
}

// stage keeps one record. The same stage may run again in recovery.
func (j *journal) stage(r StageRecord) {
	j.change(func(d *Journal) {
		if d.Stages = append(d.Stages, r); len(d.Stages) > recordsMax {
			d.Stages = slices.Delete(d.Stages, recordsMax/2, recordsMax/2+1)
		}
	})
}

func (j *journal) change(how func(*Journal)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	how(&j.doc)
}

// snapshot returns what is known now.
func (j *journal) snapshot() Journal {
	j.mu.Lock()
	defer j.mu.Unlock()
	d := j.doc
	d.Stages, d.Lines = slices.Clone(d.Stages), slices.Clone(d.Lines)
	return d
}

// open gives the journal its place on the disk and its number, removes what is too old, and writes
// what there is so far, so that the next boot can see that this one began.
func (j *journal) open(stateDir string) error {
	dir, err := durable.MakeDir(filepath.Join(stateDir, bootsName), 0o700, nil)
	if err != nil {
		return fmt.Errorf("keep a journal of the boot: %w", err)
	}
	numbers, err := journalNumbers(dir)
	if err != nil {
		dir.Close()
		return fmt.Errorf("keep a journal of the boot: %w", err)
	}
	j.change(func(d *Journal) {
		d.Number = 1
		if len(numbers) > 0 {
			d.Number = numbers[0] + 1
		}
	})
	j.dir = dir
	for _, n := range numbers[min(len(numbers), journalsMax-1):] {
		_ = dir.Remove(journalFile(n), "boot-journal-old") // the next boot tries again
	}
	return j.save()
}

// save writes the journal to the disk, if there is one.
func (j *journal) save() error {
	if j.dir == nil {
		return nil
	}
	d := j.snapshot()
	if err := j.dir.WriteJSON(journalFile(d.Number), d, 0o600, "boot-journal"); err != nil {
		return fmt.Errorf("keep a journal of the boot: %w", err)
	}
	return nil
}

func (j *journal) close() {
	if j.dir != nil {
		j.dir.Close()
		j.dir = nil
	}
}

const journalSuffix = ".json"

func journalFile(n uint64) string { return strconv.FormatUint(n, 10) + journalSuffix }

// journalNumbers returns the numbers of the journals in dir, newest first.
func journalNumbers(dir *durable.Dir) ([]uint64, error) {
	names, err := dir.Names()
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, name := range names {
		digits, ok := strings.CutSuffix(name, journalSuffix)
		if n, err := strconv.ParseUint(digits, 10, 63); ok && err == nil && journalFile(n) == name {
			numbers = append(numbers, n)
		}
	}
	slices.SortFunc(numbers, func(a, b uint64) int { return cmp.Compare(b, a) })
	return numbers, nil
}

// ReadJournals returns the journals of the last boots of a directory of record, newest first. One
// that can't be read is left out and makes err; the rest is good all the same. A directory without
// any gives none.
func ReadJournals(stateDir string) ([]Journal, error) {
	dir, err := durable.OpenDir(filepath.Join(stateDir, bootsName), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the journals of the last boots: %w", err)
	}
	defer dir.Close()
	numbers, err := journalNumbers(dir)
	if err != nil {
		return nil, fmt.Errorf("read the journals of the last boots: %w", err)
	}
	var journals []Journal
	var errs []error
	for _, n := range numbers {
		var j Journal
		if err := dir.ReadJSON(journalFile(n), journalMax, &j); err != nil {
			errs = append(errs, fmt.Errorf("read the journal of boot %d: %w", n, err))
			continue
		}
		journals = append(journals, j)
	}
	return journals, errors.Join(errs...)
}

// voice is the console of a boot: what is said there is in its journal too.
type voice struct {
	w       io.Writer
	journal *journal
}

// say prints one line. What comes from a registry or the platform can't make it two, nor pass for a
// stage's.
func (v *voice) say(format string, args ...any) {
	text := fault.OneLine(fmt.Sprintf(format, args...))
	v.journal.line(text)
	fmt.Fprintln(v.w, text)
}
