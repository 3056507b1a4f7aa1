package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Hook sees the label of an operation just before it happens. An error from it becomes the
// operation's error; the operation itself is then not done, or for a write only half done.
type Hook func(op string) error

// Dir is an open directory in which things are written durably. It stays the same directory when
// its path is renamed. It is safe for concurrent use.
type Dir struct {
	root *os.Root
	file *os.File
	path string
	hook Hook
}

// OpenDir opens an existing directory. hook may be nil.
func OpenDir(path string, hook Hook) (*Dir, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return newDir(root, path, hook)
}

// DirAt returns the directory that an open file is, however its path leads now; path is for messages. The
// caller closes both. It needs /proc.
func DirAt(file *os.File, path string, hook Hook) (*Dir, error) {
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return newDir(root, path, hook)
}

// MakeDir opens a directory after creating it with its missing parents, mode perm, durably.
func MakeDir(path string, perm fs.FileMode, hook Hook) (*Dir, error) {
	d, err := OpenDir(path, hook)
	if !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	parent, err := MakeDir(filepath.Dir(path), perm, hook)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	return parent.MakeSub(filepath.Base(path), perm, "directory")
}

func newDir(root *os.Root, path string, hook Hook) (*Dir, error) {
	file, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, err
	}
	return &Dir{root: root, file: file, path: path, hook: hook}, nil
}

// Close closes the directory. Sub-directories opened from it stay open.
func (d *Dir) Close() error { return errors.Join(d.file.Close(), d.root.Close()) }

// Path returns the path that the directory was opened by, for messages.
func (d *Dir) Path() string { return d.path }

// Root returns the directory as an os.Root, for reading and for names with several elements.
func (d *Dir) Root() *os.Root { return d.root }

// File returns the directory's descriptor, for system calls that take one. The caller doesn't
// close it.
func (d *Dir) File() *os.File { return d.file }

// Sub opens an existing sub-directory.
func (d *Dir) Sub(name string) (*Dir, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	info, err := d.root.Lstat(name)
	if err != nil {
		return nil, d.pathError("open", name, err)
	}
	if !info.IsDir() {
		return nil, d.pathError("open", name, unix.ENOTDIR)
	}
	root, err := d.root.OpenRoot(name)
	if err != nil {
		return nil, d.pathError("open", name, err)
	}
	return newDir(root, filepath.Join(d.path, name), d.hook)
}

// MakeSub opens a sub-directory after creating it durably, mode perm, where it is missing.
func (d *Dir) MakeSub(name string, perm fs.FileMode, what string) (*Dir, error) {
	sub, err := d.Sub(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return sub, err
	}
	err = d.Step(what+":mkdir", func() error {
		return d.pathError("create", name, unix.Mkdirat(d.fd(), name, uint32(perm.Perm())))
	})
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, d.Diagnose(err)
	}
	if err := d.Sync(what); err != nil {
		return nil, err
	}
	return d.Sub(name)
}

// Step runs one operation under its label: the hook first, then do.
func (d *Dir) Step(op string, do func() error) error {
	Reach(op)
	if d.hook != nil {
		if err := d.hook(op); err != nil {
			return fmt.Errorf("%s in %s: %w", op, d.path, err)
		}
	}
	return do()
}

// Sync puts the directory's own entries on the disk, under the label what:syncdir.
func (d *Dir) Sync(what string) error {
	return d.Diagnose(d.Step(what+":syncdir", d.file.Sync))
}

// SyncFS puts everything written to the directory's filesystem so far on the disk, under the
// label what:syncfs. Since Linux 5.8 it reports every write-back error since the directory was
// opened that wasn't reported before; what was written meanwhile may then be lost in part.
func (d *Dir) SyncFS(what string) error {
	return d.Diagnose(d.Step(what+":syncfs", func() error {
		if err := unix.Syncfs(d.fd()); err != nil {
			return &fs.PathError{Op: "syncfs", Path: d.path, Err: err}
		}
		return nil
	}))
}

func (d *Dir) fd() int { return int(d.file.Fd()) }

// pathError says what was being done to the name in d; nil stays nil.
func (d *Dir) pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	if inner, ok := errors.AsType[*fs.PathError](err); ok {
		err = inner.Err
	}
	return &fs.PathError{Op: op, Path: filepath.Join(d.path, name), Err: err}
}

// checkName refuses anything but a single path element.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || len(name) > 255 {
		return fmt.Errorf("file name %.80q: want a single path element of 1 to 255 bytes", name)
	}
	return nil
}
