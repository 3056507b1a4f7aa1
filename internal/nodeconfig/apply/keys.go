package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/nodeconfig"
)

// The names in a home where sshd looks by default (AuthorizedKeysFile of sshd_config(5)).
const (
	sshName  = ".ssh"
	keysName = "authorized_keys"
)

// othersWrite are the permissions with which sshd doesn't take a file or directory (StrictModes).
const othersWrite = 0o022

// Keys has a user's keys in the platform's block of ~/.ssh/authorized_keys. Other lines stay byte for byte.
// user is one that nodeconfig.ParseUser returned: without keys the block goes.
func (m *Machine) Keys(user nodeconfig.User) (Change, error) {
	a, err := m.account(user.Name)
	if err != nil {
		return Change{}, err
	}
	change := Change{Path: path.Join(a.home, sshName, keysName)}
	home, err := m.openHome(a)
	if err != nil {
		return change, err
	}
	defer home.Close()
	lines := make([]string, len(user.Keys))
	for i, k := range user.Keys {
		lines[i] = k.String()
	}
	w := keyWriter{machine: m, account: a, home: home, change: &change}
	err = asUser(a, func() error { return w.settle(lines) })
	if err != nil {
		err = fmt.Errorf("authorized keys of %s: %w", a.name, w.explain(err))
	}
	return change, err
}

// keyWriter works in one home, with its user's identity.
type keyWriter struct {
	machine *Machine
	account account
	home    *os.File
	change  *Change
}

func (w *keyWriter) settle(lines []string) error {
	dir, err := w.open()
	if err != nil {
		return err
	}
	if dir == nil {
		return w.begin(lines)
	}
	defer dir.Close()
	file, err := readFile(dir, keysName, maxKeyFile)
	if err != nil {
		return err
	}
	if file.there {
		if err := w.own(file.stat, w.change.Path); err != nil {
			return err
		}
		if file.stat.Nlink != 1 {
			return refuse("replace it with a file of its own", "%s has %d names: it is a hard link to another file", w.change.Path, file.stat.Nlink)
		}
	}
	return w.merge(dir, file, lines)
}

// begin makes ~/.ssh, where there is none, if there are keys for it.
func (w *keyWriter) begin(lines []string) error {
	merged, err := nodeconfig.Merge(nil, lines)
	if err != nil || !merged.Changed {
		return err
	}
	if w.machine.options.DryRun {
		w.change.Changed, w.change.Added = true, merged.Added
		return nil
	}
	home, err := durable.DirAt(w.home, w.account.home, w.machine.options.Hook)
	if err != nil {
		return err
	}
	defer home.Close()
	made, err := home.MakeSub(sshName, 0o700, "ssh")
	if err != nil {
		return err
	}
	made.Close()
	// Whatever is there by now is looked at like any other.
	dir, err := w.open()
	if err != nil {
		return err
	}
	if dir == nil {
		return &fs.PathError{Op: "open", Path: path.Join(w.account.home, sshName), Err: fs.ErrNotExist}
	}
	defer dir.Close()
	return w.merge(dir, content{perm: 0o600}, lines)
}

// open opens ~/.ssh, and mends permissions with which its keys wouldn't count. nil says that it isn't there.
func (w *keyWriter) open() (*durable.Dir, error) {
	where := path.Join(w.account.home, sshName)
	// RESOLVE_NO_SYMLINKS is about the last name, too; O_NOFOLLOW beside it would hide which it was.
	fd, err := openat2(w.home, sshName, unix.O_RDONLY|unix.O_DIRECTORY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, unix.ELOOP):
		return nil, refuse("replace it with a directory", "%s is a symbolic link, and none is followed there", where)
	case errors.Is(err, unix.ENOTDIR):
		return nil, refuse("replace it with a directory", "%s isn't a directory", where)
	case err != nil:
		return nil, &fs.PathError{Op: "open", Path: where, Err: err}
	}
	defer fd.Close()
	var home, stat unix.Stat_t
	if err := errors.Join(unix.Fstat(int(w.home.Fd()), &home), unix.Fstat(int(fd.Fd()), &stat)); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: where, Err: err}
	}
	if err := w.own(stat, where); err != nil {
		return nil, err
	}
	if home.Mode&othersWrite != 0 {
		w.remark("%s can be written by others: sshd doesn't take keys from there (StrictModes)", w.account.home)
	}
	if err := w.tighten(fd, stat, where); err != nil {
		return nil, err
	}
	return durable.DirAt(fd, where, w.machine.options.Hook)
}

// merge writes the file with the block in it, if that is another than it is.
func (w *keyWriter) merge(dir *durable.Dir, file content, lines []string) error {
	merged, err := nodeconfig.Merge(file.data, lines)
	if err != nil {
		return refuse("edit "+w.change.Path, "%s: %w", w.change.Path, err)
	}
	w.change.Added, w.change.Removed = merged.Added, merged.Removed
	if !merged.Changed {
		if !file.there {
			return nil
		}
		f, err := dir.Open(keysName)
		if err != nil {
			return err
		}
		defer f.Close()
		var stat unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
			return err
		}
		return w.tighten(f, stat, w.change.Path)
	}
	perm := file.perm
	if file.there && perm&othersWrite != 0 {
		perm &^= othersWrite
		w.remark("%s could be written by others, and sshd doesn't take such a file: its mode is %#o", w.change.Path, perm)
	}
	if file.there && int(file.stat.Uid) != w.account.uid {
		w.remark("%s was root's", w.change.Path)
	}
	if !w.machine.options.DryRun {
		if err := dir.SweepFiles(maxSwept); err != nil {
			return err
		}
		if err := dir.WriteFile(keysName, merged.Data, perm, keysName); err != nil {
			return err
		}
	}
	w.change.Changed = true
	return nil
}

// maxSwept is how many names of a directory, which its user may have filled with anything, are looked at for temporary files
// that a kill left.
const maxSwept = 4096

// own refuses what belongs to a third user.
func (w *keyWriter) own(stat unix.Stat_t, where string) error {
	if stat.Uid == 0 || int(stat.Uid) == w.account.uid {
		return nil
	}
	return refuse("make it the user's", "%s belongs to user ID %d, and not to %s or root", where, stat.Uid, w.account.name)
}

// tighten takes the right to write from others, as sshd wants it, and says so.
func (w *keyWriter) tighten(f *os.File, stat unix.Stat_t, where string) error {
	if stat.Mode&othersWrite == 0 {
		return nil
	}
	perm := stat.Mode & 0o777 &^ othersWrite
	if !w.machine.options.DryRun {
		if err := unix.Fchmod(int(f.Fd()), stat.Mode&0o7000|perm); err != nil {
			return &fs.PathError{Op: "chmod", Path: where, Err: err}
		}
	}
	w.change.Changed = true
	w.remark("%s could be written by others, and sshd doesn't take such a file: its mode is %#o", where, perm)
	return nil
}

func (w *keyWriter) remark(format string, args ...any) {
	w.change.Remarks = append(w.change.Remarks, fmt.Sprintf(format, args...))
}

// explain says of a missing permission whose it is.
func (w *keyWriter) explain(err error) error {
	if errors.Is(err, fs.ErrPermission) && w.account.uid != os.Geteuid() {
		return refuse("give the user the right to it", "user %s may not do this in their own home: %w", w.account.name, err)
	}
	return err
}
