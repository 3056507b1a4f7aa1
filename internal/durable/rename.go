package durable

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// Rename renames a file or directory, replacing an existing file, and syncs the directory. The
// labels are what:rename and what:syncdir.
func (d *Dir) Rename(from, to, what string) error { return d.rename(from, to, 0, what) }

// RenameNew is Rename for a new name that must not exist yet: an error that wraps fs.ErrExist,
// and nothing changed, where it does.
func (d *Dir) RenameNew(from, to, what string) error {
	return d.rename(from, to, unix.RENAME_NOREPLACE, what)
}

// Exchange swaps two existing names in one step, so that each always exists.
func (d *Dir) Exchange(a, b, what string) error { return d.rename(a, b, unix.RENAME_EXCHANGE, what) }

func (d *Dir) rename(from, to string, flags uint, what string) error {
	for _, name := range []string{from, to} {
		if err := checkName(name); err != nil {
			return err
		}
	}
	err := d.Step(what+":rename", func() error {
		return d.pathError("rename to", to, unix.Renameat2(d.fd(), from, d.fd(), to, flags))
	})
	if err != nil {
		return d.Diagnose(err)
	}
	return d.Sync(what)
}

// Remove removes a file or an empty directory and syncs the directory. A name that isn't there
// gives an error that wraps fs.ErrNotExist. The labels are what:remove and what:syncdir.
func (d *Dir) Remove(name, what string) error {
	if err := checkName(name); err != nil {
		return err
	}
	err := d.Step(what+":remove", func() error { return d.pathError("remove", name, d.root.Remove(name)) })
	if err != nil {
		return d.Diagnose(err)
	}
	return d.Sync(what)
}

// RemoveTree removes a directory with all that is in it, so that a kill leaves the whole
// directory or none: it is renamed to a temporary name first, which Sweep would finish. The
// labels are what:rename, what:syncdir and what:remove.
func (d *Dir) RemoveTree(name, what string) error {
	temp := tempName()
	if err := d.RenameNew(name, temp, what); err != nil {
		return err
	}
	return d.Diagnose(d.Step(what+":remove", func() error { return d.pathError("remove", name, d.root.RemoveAll(temp)) }))
}

// MakeTemp creates and opens a directory with mode perm and a temporary name, which it returns
// too, to fill before Rename or Exchange puts it in place. Sweep removes what a kill leaves of it.
// The label is what:mkdir.
func (d *Dir) MakeTemp(perm fs.FileMode, what string) (*Dir, string, error) {
	name := tempName()
	err := d.Step(what+":mkdir", func() error {
		return d.pathError("create", name, unix.Mkdirat(d.fd(), name, uint32(perm.Perm())))
	})
	if err != nil {
		return nil, "", d.Diagnose(err)
	}
	sub, err := d.Sub(name)
	return sub, name, err
}
