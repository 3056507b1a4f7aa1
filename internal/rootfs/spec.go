package rootfs

import (
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/store"
)

// The root's top-level directories that something is put into.
const (
	persistName = "persist"
	varName     = "var"
	etcName     = "etc"
)

// The layout below the directory of record, which only this package uses:
//
//	roots/var                       what /var holds
//	upper/<root digest>.<level>/    a writable layer on the disk: upper, and a work directory for each boot;
//	                                record.json from its first live change on
//	etc/                            local changes to /etc: upper, work directories, record.json
//	kept/                           the files that are put back at each boot
const (
	rootsName  = "roots"
	uppersName = "upper"
	keptName   = "kept"
	upperName  = "upper"
	workPrefix = "work-"
	// asideName is where files of a layer are made before they get their place in it.
	asideName = "aside"
)

// Spec says what root to make, and where.
type Spec struct {
	// At is where the union is mounted; it is made where it is missing.
	At string
	// Scratch is a directory of this boot, on a tmpfs, for what the root needs beside itself: a
	// writable layer in memory is mounted at "upper" below it.
	Scratch string
	// Beside says that a root runs which was made from the same directory of record: what that one
	// uses stays as it is.
	Beside bool
	// Store holds the root image and its objects; its path is the directory of record.
	Store      *store.Store
	RootDigest fsverity.Digest
	// Current says that the current generation has this root: only then what a live change to it took out of the writable layer, and a
	// power cut left aside, is removed for good.
	Current bool
	// Level is what mount.Decide returned.
	Level mount.Level
	// Persist is the directory that becomes the root's /persist. With PersistReadOnly set, nothing
	// can be written there: what would be kept lasts until the next boot, and remarks say so.
	Persist         string
	PersistReadOnly bool
	// Upper is the writable layer.
	Upper Upper
	// Etc says what becomes of changes to /etc; "" is Ephemeral.
	Etc Etc
	// Init is the program that is to be started in the root; "" is /sbin/init.
	Init string
	// Derived reports whether what lies at an absolute path follows from the root image: of changes that are kept, such
	// are dropped when another root image comes beneath them. nil drops none.
	Derived func(path string) bool
	// Remark takes what a person should know although the root is made; nil drops it.
	Remark func(text, hint string)
	// Hook sees the label of every durable write; for tests.
	Hook durable.Hook
}

// Upper says what the writable layer is made of.
type Upper struct {
	// Kind is where it lies; "" is InMemory.
	Kind UpperKind
	// Size of one in memory, as tmpfs writes it ("512m", "25%"); "" is half of the memory.
	Size string
}

// UpperKind is where a writable layer lies.
type UpperKind string

// The kinds of writable layers. One in memory ends with the boot. One on persist belongs to the root that it
// began with, at one integrity level, and to those that came beneath it by live changes: another root begins with an
// empty one, and going back to an earlier root finds that root's own again. What is in it points into the root
// image it was written over (a file whose mode alone was changed has its content there), so before another one
// boots over it, it is settled (package delta).
const (
	InMemory  UpperKind = "tmpfs"
	OnPersist UpperKind = "persist"
)

// Etc says what becomes of changes to /etc.
type Etc string

// The policies for /etc. Ephemeral changes are the writable layer's. Persistent ones outlive the
// boot and the root image: they are a layer of their own over whatever /etc the root image has.
const (
	Ephemeral  Etc = "ephemeral"
	Persistent Etc = "persistent"
)

func (s *Spec) fill() error {
	if s.At == "" || s.Scratch == "" || s.Store == nil || s.Persist == "" || s.RootDigest.IsZero() {
		return fault.New(fault.Broken, fault.Mount, "", "make a root: place, scratch directory, store, root digest and persist directory must be given")
	}
	if s.Upper.Kind == "" {
		s.Upper.Kind = InMemory
	}
	if s.Upper.Size == "" {
		s.Upper.Size = "50%"
	}
	if s.Etc == "" {
		s.Etc = Ephemeral
	}
	if s.Init == "" {
		s.Init = "/sbin/init"
	}
	if s.Remark == nil {
		s.Remark = func(string, string) {}
	}
	switch {
	case s.Upper.Kind != InMemory && s.Upper.Kind != OnPersist:
		return fault.New(fault.Refuse, fault.Input, "write tmpfs or persist", "make a root: a writable layer of kind %q", s.Upper.Kind)
	case s.Etc != Ephemeral && s.Etc != Persistent:
		return fault.New(fault.Refuse, fault.Input, "write ephemeral or persistent", "make a root: the policy %q for /etc", s.Etc)
	}
	return nil
}

// stateDir is the directory of record.
func (s *Spec) stateDir() string { return s.Store.Path() }

// memoryDir is where a writable layer in memory is mounted.
func (s *Spec) memoryDir() string { return filepath.Join(s.Scratch, "upper") }

// Unfit says that a root was mounted as it should be, and can't run: its modules are to blame.
type Unfit struct{ error }

// Unwrap returns the reason.
func (e *Unfit) Unwrap() error { return e.error }

// Facts are what is known of a root that was made.
type Facts struct {
	// Upper is where the writable layer lies, and UpperDir its directory, by the path that it had
	// when it was made.
	Upper    UpperKind `json:"upper"`
	UpperDir string    `json:"upper_dir"`
	// UpperSize is the size of one in memory, as it was asked for: "50%".
	UpperSize string `json:"upper_size,omitempty"`
	// Etc is the policy that could be kept to; EtcConflicts counts files that were changed here and,
	// since the root image that ran before, by the image too. The local ones stay.
	Etc          Etc `json:"etc"`
	EtcConflicts int `json:"etc_conflicts,omitempty"`
	// VarKept reports whether what is written to /var goes to the persist directory.
	VarKept bool `json:"var_kept"`
	// Shipped are the files that could be kept and that the root image has, by name, with the
	// SHA-256 of its content: Save leaves what is unchanged to the image.
	Shipped map[string]string `json:"shipped,omitempty"`
}
