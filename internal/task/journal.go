package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/powernode/powernode-agent/internal/durable"
)

const (
	recordSuffix = ".json"
	noteSuffix   = ".note"
	// maxNote bounds a note, in bytes.
	maxNote = 4 << 10
)

// Journal is the records of a node's tasks on the disk, a file each. It is for one process and one goroutine, but for notes, which are for any.
type Journal struct{ dir *durable.Dir }

// OpenJournal opens the journal in a directory, which it creates where it is missing. hook may be nil.
func OpenJournal(dir string, hook durable.Hook) (*Journal, error) {
	d, err := durable.MakeDir(dir, 0o700, hook)
	if err != nil {
		return nil, fmt.Errorf("open the journal of tasks: %w", err)
	}
	if err := d.Sweep(); err != nil {
		d.Close()
		return nil, fmt.Errorf("open the journal of tasks: %w", err)
	}
	return &Journal{d}, nil
}

// Close closes the journal.
func (j *Journal) Close() error { return j.dir.Close() }

// Load returns the records. Of one that can't be read it returns what its name says, as of a task that was begun, beside an
// error: it isn't known whether it was, and a task is rather failed than run twice.
func (j *Journal) Load() ([]Record, error) {
	names, err := j.dir.Names()
	if err != nil {
		return nil, fmt.Errorf("read the journal of tasks: %w", err)
	}
	var records []Record
	var errs []error
	for _, name := range names {
		id, ok := strings.CutSuffix(name, recordSuffix)
		if !ok || CheckID(id) != nil {
			continue
		}
		r, err := j.read(name, id)
		if err != nil {
			errs = append(errs, fmt.Errorf("read the record of task %s: %w", id, err))
			r = Record{Task: Task{ID: id}, Phase: Begun, Runs: 1}
		}
		records = append(records, r)
	}
	return records, errors.Join(errs...)
}

func (j *Journal) read(name, id string) (Record, error) {
	data, err := j.dir.ReadFile(name, maxRecord)
	if err != nil {
		return Record{}, err
	}
	return decodeRecord(data, id)
}

// Save puts a record on the disk, in place of the one that was there. The label is "task-" and the record's phase.
func (j *Journal) Save(r Record) error {
	if err := CheckID(r.Task.ID); err != nil {
		return err
	}
	data, err := r.encode()
	if err == nil {
		err = j.dir.WriteFile(r.Task.ID+recordSuffix, data, 0o600, "task-"+string(r.Phase))
	}
	if err != nil {
		return fmt.Errorf("write down task %s: %w", r.Task.ID, err)
	}
	return nil
}

// Note puts on the disk what a handler has settled for a task, in place of what it had before: v as JSON, of at most 4 KiB. It stays until the
// task is forgotten, over restarts of the agent and power cuts. Any goroutine may call it. The label is task-note.
func (j *Journal) Note(id string, v any) error {
	if err := CheckID(id); err != nil {
		return err
	}
	data, err := json.Marshal(v)
	if err == nil && len(data) > maxNote {
		err = fmt.Errorf("%d bytes, at most %d are kept", len(data), maxNote)
	}
	if err == nil {
		err = j.dir.WriteFile(id+noteSuffix, data, 0o600, "task-note")
	}
	if err != nil {
		return fmt.Errorf("write down what is settled for task %s: %w", id, err)
	}
	return nil
}

// Noted reads what Note has put down into v, and reports whether there is anything. Any goroutine may call it.
func (j *Journal) Noted(id string, v any) (bool, error) {
	if err := CheckID(id); err != nil {
		return false, err
	}
	err := j.dir.ReadJSON(id+noteSuffix, maxNote, v)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read what is settled for task %s: %w", id, err)
	}
	return true, nil
}

// Remove forgets a task, its note first. The labels are task-note and task-forgotten.
func (j *Journal) Remove(id string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	if _, err := j.dir.Root().Lstat(id + noteSuffix); !errors.Is(err, fs.ErrNotExist) { // few have one
		if err := j.dir.Remove(id+noteSuffix, "task-note"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget task %s: %w", id, err)
		}
	}
	if err := j.dir.Remove(id+recordSuffix, "task-forgotten"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget task %s: %w", id, err)
	}
	return nil
}
