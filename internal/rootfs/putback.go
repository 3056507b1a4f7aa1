package rootfs

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// putKept puts the kept files into the root's /etc, and a machine ID where the node has none.
// changes is the directory of the layer that local changes to /etc are in: a file that is there
// is newer than the kept one. Nothing of it is worth a boot.
//
// systemd takes a boot for the machine's first one where /etc/machine-id is missing or says
// "uninitialized" (machine-id(5)), and would then enable units by preset. Here it finds an ID at
// every boot: which units are enabled is said by the root image, whose /etc is the same each time.
func (r *Root) putKept(changes string) {
	remark := func(what string, err error) {
		r.spec.Remark(fmt.Sprintf("%s: %v", what, err), fault.HintOf(err))
	}
	etc, err := openEtc(r.spec.At, true)
	if err != nil {
		remark("machine ID, host keys and host name can't be put back", err)
		return
	}
	defer etc.Close()
	local := func(f keptFile) bool {
		info, err := os.Lstat(filepath.Join(changes, f.path()))
		return err == nil && info.Mode().IsRegular()
	}
	r.noteShipped(etc, local)
	kept, unread, err := r.readKept()
	if err != nil {
		remark("the kept files can't all be read", err)
	}
	if _, ok := kept[machineIDName]; !ok {
		id, err := r.machineID(etc, local(machineIDFile), unread)
		if err != nil {
			remark("the machine ID will be another one at the next boot", err)
		}
		if unread {
			// What it stands in for may be read again later: Save must not put this one in its place.
			r.facts.Shipped[machineIDName] = sum(id)
		}
		kept[machineIDName] = id
	}
	for name, data := range kept {
		f, _ := keptFileOf(name)
		// A power cut leaves an empty file of what was put back or made just before, and someone may
		// have emptied the machine ID, which a node must have.
		if local(f) && checkAt(etc, f) == nil {
			continue
		}
		if err := putBack(etc, f, data); err != nil {
			remark("/etc/"+f.path()+" can't be put back", err)
		}
	}
}

// openEtc opens /etc of a root, which must be a directory and no link; it is made where it is
// missing and is to be.
func openEtc(path string, make bool) (*os.Root, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if make {
		if err := root.Mkdir(etcName, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	return openBelow(root, etcName)
}

// openBelow opens a directory of root that is one and no link.
func openBelow(root *os.Root, name string) (*os.Root, error) {
	info, err := root.Lstat(name)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: name, Err: unix.ENOTDIR}
	}
	if err != nil {
		return nil, err
	}
	return root.OpenRoot(name)
}

// noteShipped remembers what the root image has under the names of kept files.
func (r *Root) noteShipped(etc *os.Root, local func(keptFile) bool) {
	r.facts.Shipped = make(map[string]string)
	for _, f := range keptFilesAt(etc) {
		if local(f) {
			continue
		}
		if data, err := f.read(etc); err == nil {
			r.facts.Shipped[f.name] = sum(data)
		}
	}
}

// keptFilesAt returns the files to keep that an /etc might have: the fixed ones, and the host keys
// that are there.
func keptFilesAt(etc *os.Root) []keptFile {
	files := []keptFile{machineIDFile, hostNameFile}
	dir, err := etc.Open(sshDir)
	if err != nil {
		return files
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(4096)
	for _, name := range names {
		if f, ok := hostKeyFile(name); ok && len(files) < hostKeysMax {
			files = append(files, f)
		}
	}
	return files
}

// readKept returns the kept files that are whole, by name. The error is about those that aren't; unread
// says that a machine ID may be kept that the disk just doesn't give.
func (r *Root) readKept() (kept map[string][]byte, unread bool, err error) {
	kept = make(map[string][]byte)
	dir, err := os.OpenRoot(filepath.Join(r.spec.stateDir(), keptName))
	if errors.Is(err, fs.ErrNotExist) {
		return kept, false, nil
	}
	if err != nil {
		return kept, true, err
	}
	defer dir.Close()
	list, err := dir.Open(".")
	if err != nil {
		return kept, true, err
	}
	defer list.Close()
	var errs []error
	names, err := list.Readdirnames(4096)
	if err != nil && !errors.Is(err, io.EOF) {
		unread, errs = true, append(errs, err)
	}
	for _, name := range names {
		f, ok := keptFileOf(name)
		if !ok {
			continue // a temporary file that a kill left
		}
		data, err := durable.ReadFile(dir, name, f.limit)
		unread = unread || name == machineIDName && unreadable(err)
		if err == nil {
			err = f.check(data)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		kept[name] = data
	}
	return kept, unread, errors.Join(errs...)
}

// unreadable reports whether err, of reading a kept file, leaves open what it holds: the disk or the
// kernel failed. A file that isn't there, or isn't what it should be, is known to hold nothing.
func unreadable(err error) bool {
	errno, ok := errors.AsType[unix.Errno](err)
	return ok && errno != unix.ENOENT && errno != unix.ELOOP
}

// machineID returns the ID of a node that keeps none yet: the one that /etc has by a local change,
// else a new one. It is kept before it is used; an error says that it couldn't be, or that it wasn't
// because one that is kept already might only be unreadable.
func (r *Root) machineID(etc *os.Root, local, unread bool) ([]byte, error) {
	var id []byte
	if local {
		id, _ = machineIDFile.read(etc)
	}
	if checkMachineID(id) != nil {
		id = newMachineID()
	}
	if r.spec.PersistReadOnly {
		return id, errors.New("the disk can't be written")
	}
	if unread {
		return id, errors.New("the one that is kept can't be read")
	}
	dir, err := durable.MakeDir(filepath.Join(r.spec.stateDir(), keptName), 0o700, r.spec.Hook)
	if err != nil {
		return id, err
	}
	defer dir.Close()
	return id, dir.WriteFile(machineIDName, id, 0o600, "kept-machine-id")
}

// newMachineID returns a random UUID of version 4 without dashes, as systemd-machine-id-setup(1)
// makes it.
func newMachineID() []byte {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0F | 0x40
	b[8] = b[8]&0x3F | 0x80
	return append(hex.AppendEncode(nil, b[:]), '\n')
}

// putBack makes a file of /etc hold data. Whatever but a directory is in its place is replaced, so
// that nothing is written through a link. A directory that is missing isn't made: host keys are
// of no use to a root image without SSH.
func putBack(etc *os.Root, f keptFile, data []byte) error {
	dir, err := openBelow(etc, f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	info, err := dir.Lstat(f.name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		there, err := durable.ReadFile(dir, f.name, f.limit)
		if err == nil && bytes.Equal(there, data) && info.Mode() == f.perm {
			return nil
		}
		if info.IsDir() {
			return &fs.PathError{Op: "replace", Path: f.path(), Err: unix.EISDIR}
		}
		if err := dir.Remove(f.name); err != nil {
			return err
		}
	}
	file, err := dir.OpenFile(f.name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Chmod(f.perm), file.Close())
}

func checkAt(etc *os.Root, f keptFile) error {
	data, err := f.read(etc)
	if err != nil {
		return err
	}
	return f.check(data)
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}
