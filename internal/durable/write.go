package durable

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
)

// WriteFile makes name in dir hold data with mode perm, replacing what was there. It is
// Dir.WriteFile for a caller that has no Dir.
func WriteFile(dir *os.Root, name string, data []byte, perm fs.FileMode, what string) error {
	file, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer file.Close()
	d := Dir{root: dir, file: file, path: dir.Name()}
	return d.WriteFile(name, data, perm, what)
}

// WriteFile makes name hold data with mode perm, whatever the umask, replacing what was there.
// Readers see the old file or the new one, never a part. The labels are what:create, what:write,
// what:fsync, what:link (to a temporary name), what:rename and what:syncdir.
func (d *Dir) WriteFile(name string, data []byte, perm fs.FileMode, what string) error {
	return d.write(name, data, perm, what, d.replace)
}

// WriteNew is WriteFile for a name that must not exist yet: an error that wraps fs.ErrExist, and
// nothing changed, where it does. The label what:rename doesn't occur.
func (d *Dir) WriteNew(name string, data []byte, perm fs.FileMode, what string) error {
	return d.write(name, data, perm, what, d.link)
}

// WriteJSON is WriteFile with v as indented JSON, ended by a newline.
func (d *Dir) WriteJSON(name string, v any, perm fs.FileMode, what string) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return d.WriteFile(name, append(data, '\n'), perm, what)
}

// WriteLoose creates name, which must not exist, with data and mode perm, and syncs nothing: it is
// for a directory from MakeTemp, which SyncFS puts on the disk as a whole before it gets its name.
// The labels are what:create and what:write.
func (d *Dir) WriteLoose(name string, data []byte, perm fs.FileMode, what string) error {
	if err := checkName(name); err != nil {
		return err
	}
	var f *os.File
	err := d.Step(what+":create", func() (err error) {
		f, err = d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm.Perm())
		return d.pathError("create", name, err)
	})
	if err != nil {
		return d.Diagnose(err)
	}
	return errors.Join(d.WriteAll(f, data, what), f.Close())
}

func (d *Dir) write(name string, data []byte, perm fs.FileMode, what string, install func(f *os.File, name, what string) error) error {
	if err := checkName(name); err != nil {
		return err
	}
	f, err := d.temp(".", name, perm, what)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(perm.Perm()); err != nil {
		return d.Diagnose(err)
	}
	if err := d.WriteAll(f, data, what); err != nil {
		return err
	}
	if err := d.Step(what+":fsync", f.Sync); err != nil {
		return d.Diagnose(err)
	}
	if err := install(f, name, what); err != nil {
		return d.Diagnose(err)
	}
	return d.Sync(what)
}

// Temp creates an unnamed file with mode perm, less the umask, in the sub-directory of that name,
// or in the directory itself where sub is "."; open for reading and writing. It vanishes when it
// is closed, also by a kill, unless it was linked. The label is what:create.
func (d *Dir) Temp(sub string, perm fs.FileMode, what string) (*os.File, error) {
	if sub != "." {
		if err := checkName(sub); err != nil {
			return nil, err
		}
	}
	return d.temp(sub, ".", perm, what)
}

// temp is Temp for a file that is to get a name, which messages then show.
func (d *Dir) temp(sub, name string, perm fs.FileMode, what string) (*os.File, error) {
	var f *os.File
	err := d.Step(what+":create", func() error {
		fd, err := unix.Openat(d.fd(), sub, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, uint32(perm.Perm()))
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
			return fault.New(fault.Refuse, fault.Mount, "put it on ext4, XFS, btrfs or tmpfs",
				"the filesystem of %s has no unnamed files: %w", d.path, err)
		}
		if err != nil {
			return d.pathError("create", name, err)
		}
		f = os.NewFile(uintptr(fd), filepath.Join(d.path, name))
		return nil
	})
	return f, d.Diagnose(err)
}

// WriteAll appends data to f under the label what:write. Where the hook fails that, half the data
// is written first, as on a disk that fills up.
func (d *Dir) WriteAll(f io.Writer, data []byte, what string) error {
	passed := false
	err := d.Step(what+":write", func() error {
		passed = true
		_, err := f.Write(data)
		return err
	})
	if !passed {
		_, half := f.Write(data[:len(data)/2])
		err = errors.Join(err, half)
	}
	return d.Diagnose(err)
}

// Link gives the unnamed file f a name that must not exist yet (else the error wraps
// fs.ErrExist). The label is what:link; neither file nor directory is synced.
func (d *Dir) Link(f *os.File, name, what string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return d.Diagnose(d.link(f, name, what))
}

func (d *Dir) link(f *os.File, name, what string) error {
	return d.Step(what+":link", func() error { return d.pathError("create", name, LinkUnnamed(f, d.file, name)) })
}

// replace names f by way of a temporary name, since a link can't replace a file.
func (d *Dir) replace(f *os.File, name, what string) error {
	temp := tempName()
	if err := d.link(f, temp, what); err != nil {
		return err
	}
	err := d.Step(what+":rename", func() error {
		return d.pathError("replace", name, unix.Renameat(d.fd(), temp, d.fd(), name))
	})
	if err != nil {
		err = errors.Join(err, d.pathError("remove", temp, unix.Unlinkat(d.fd(), temp, 0)))
	}
	return err
}

// LinkUnnamed links the unnamed file f to a path relative to dir and returns the bare errno.
// It asks the kernel to link the descriptor itself; where that needs a capability that the
// process lacks, it goes by way of /proc.
func LinkUnnamed(f, dir *os.File, path string) error {
	err := unix.Linkat(int(f.Fd()), "", int(dir.Fd()), path, unix.AT_EMPTY_PATH)
	if err != unix.ENOENT && err != unix.EPERM {
		return err
	}
	// ENOENT stands for the missing capability and for a missing directory in path alike.
	return linkByProc(f, dir, path)
}

func linkByProc(f, dir *os.File, path string) error {
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), int(dir.Fd()), path, unix.AT_SYMLINK_FOLLOW)
}

const tempPrefix = ".durable-"

func tempName() string { return tempPrefix + rand.Text() }

// Sweep removes the temporary files that killed writers left in the directory. Nobody may be
// writing there meanwhile.
func (d *Dir) Sweep() error {
	names, err := d.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, tempPrefix) {
			continue
		}
		if err := d.root.RemoveAll(name); err != nil {
			return d.pathError("remove", name, err)
		}
	}
	return nil
}

// SweepFiles is Sweep for a directory that somebody else may fill with anything: it looks at the first most names only,
// and removes no directories, whose depth and size would be that one's to say.
func (d *Dir) SweepFiles(most int) error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(most)
	if err != nil && !errors.Is(err, io.EOF) {
		return d.pathError("read", ".", err)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, tempPrefix) {
			continue
		}
		err := unix.Unlinkat(d.fd(), name, 0)
		if err != nil && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.ENOENT) {
			return d.pathError("remove", name, err)
		}
	}
	return nil
}
