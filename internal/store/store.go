package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

const (
	formatFile    = "store.json"
	formatVersion = 1
	lockFile      = "store.lock"
	dirPerm       = 0o700
	recordPerm    = 0o600
	recordLimit   = 8 << 20
)

// Options says how to open a store. The zero value is right for a node.
type Options struct {
	// ReadOnly opens an existing store without changing or recovering anything. Methods that
	// write then return an error of kind Refuse.
	ReadOnly bool
	// Hook sees the label of every operation on the disk; for tests.
	Hook durable.Hook
}

// Store is an open store, one handle for one piece of work. Its methods may be called from
// several goroutines.
type Store struct {
	readOnly bool
	recovery Recovery

	dir, objects, modules, generations, partial, unsynced *durable.Dir

	// linking is held shared while an object gets its name, and alone to change marker and lock
	// or to take fresh, so that Sync knows which objects its syncfs covers.
	linking sync.RWMutex
	lock    *durable.Lock
	alone   bool              // lock is exclusive
	marker  string            // the handle's marker in unsynced, "" while it has none
	freshMu sync.Mutex        // for appending to fresh while linking is held shared
	fresh   []fsverity.Digest // linked since the last Sync took it
	// synced is the last object that SyncObject put on the disk; nil if it was removed since.
	synced atomic.Pointer[fsverity.Digest]

	naming   naming
	syncing  sync.Mutex    // one Sync at a time
	failures atomic.Uint64 // how many of them failed

	readGenerations memo[Generation]
	readModules     memo[moduleRecord]

	buffers sync.Pool // of *buffer
	verity  atomic.Pointer[error]
}

// Open opens the store in dir, creating it where it is missing, and repairs what a crash left
// behind. The directory may hold other things beside the store's.
func Open(dir string, opts Options) (*Store, error) {
	s := &Store{readOnly: opts.ReadOnly}
	if err := s.open(dir, opts); err != nil {
		s.Close()
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

func (s *Store) open(dir string, opts Options) (err error) {
	if opts.ReadOnly {
		s.dir, err = durable.OpenDir(dir, opts.Hook)
	} else {
		s.dir, err = durable.MakeDir(dir, dirPerm, opts.Hook)
	}
	if err != nil {
		return err
	}
	if err := s.checkFormat(); err != nil {
		return err
	}
	for _, sub := range []struct {
		name string
		dir  **durable.Dir
		work bool // for writing only
	}{
		{"objects", &s.objects, false},
		{"modules", &s.modules, false},
		{"generations", &s.generations, false},
		{"partial", &s.partial, true},
		{"unsynced", &s.unsynced, true},
	} {
		switch {
		case opts.ReadOnly && sub.work:
			continue
		case opts.ReadOnly:
			*sub.dir, err = s.dir.Sub(sub.name)
		default:
			*sub.dir, err = s.dir.MakeSub(sub.name, dirPerm, "store")
		}
		if err != nil {
			return err
		}
	}
	s.buffers.New = func() any { return new(buffer) }
	s.naming.init(opts.Hook == nil)
	if opts.ReadOnly {
		return nil
	}
	return s.recover(context.Background())
}

// checkFormat refuses a store of another version, and marks a new one with ours; also one whose mark can't be
// read, which is worth less than what it marks.
func (s *Store) checkFormat() error {
	var format struct {
		Format *int `json:"format"`
	}
	data, err := s.dir.ReadFile(formatFile, 1<<10)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err == nil {
		// Leniently: a later version may say more.
		if err = json.Unmarshal(data, &format); err == nil && format.Format == nil {
			err = errors.New("it names none")
		}
	}
	switch {
	case err == nil && *format.Format != formatVersion:
		return fault.New(fault.Refuse, fault.General, "use the agent that wrote it, or a newer one",
			"%s has store format %d, this agent knows %d", s.dir.Path(), *format.Format, formatVersion)
	case err == nil:
		return nil
	case !fresh:
		s.recovery.Format = fmt.Sprintf("the store's format couldn't be read from %s/%s: %v", s.dir.Path(), formatFile, err)
	}
	if s.readOnly {
		return nil // where there is no store, there are no objects either
	}
	return s.dir.WriteJSON(formatFile, map[string]int{"format": formatVersion}, recordPerm, "store")
}

// Close gives up the handle. Objects that no record lists stay until Collect removes them.
func (s *Store) Close() error {
	errs := []error{s.naming.settle()}
	if s.lock != nil {
		errs = append(errs, s.lock.Unlock())
		s.lock = nil
	}
	for _, d := range []*durable.Dir{s.objects, s.modules, s.generations, s.partial, s.unsynced, s.dir} {
		if d != nil {
			errs = append(errs, d.Close())
		}
	}
	return errors.Join(errs...)
}

// Path returns the store's directory as it was opened.
func (s *Store) Path() string { return s.dir.Path() }

// ObjectsDir returns the descriptor of the objects directory, to mount as a data-only layer. It
// stays open until Close.
func (s *Store) ObjectsDir() *os.File { return s.objects.File() }

// ObjectsPath returns the path of the objects directory.
func (s *Store) ObjectsPath() string { return s.objects.Path() }

// Verity says whether the kernel can enforce the digests of the store's objects: nil, or an error
// with fsverity.ErrNotBuiltIn or fsverity.ErrNotSupported in its chain.
func (s *Store) Verity() error {
	if known := s.verity.Load(); known != nil {
		return *known
	}
	// Asking for the digest of a directory tells the same as of a file without one.
	_, err := fsverity.Measure(s.objects.File())
	if errors.Is(err, fsverity.ErrNotEnabled) {
		err = nil
	}
	s.verity.Store(&err)
	return err
}

func (s *Store) writable() error {
	if s.readOnly {
		return fault.New(fault.Refuse, fault.General, "", "the store %s was opened for reading only", s.dir.Path())
	}
	return nil
}
