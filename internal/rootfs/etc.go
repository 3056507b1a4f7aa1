package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/switchroot"
)

// The lower layer of a persistent /etc is a copy in memory of the one that the union shows, and
// not the union or its image. Over the image the overlay would need metacopy=on to reach the
// object store, and with it redirect_dir=on: a file whose mode alone was changed would then have
// its content in a root image that is gone at the next update, and a renamed directory all of its
// files. Over the union it would be one layer more than the kernel stacks (FILESYSTEM_MAX_STACK_DEPTH
// 2: a file-backed EROFS is one, the union the second). Files in memory are whole, so nothing in the
// upper refers to them, and each was read through the union: at level enforced the kernel has
// checked it. A copy takes a few megabytes.

// etcMemory bounds the copy of the root image's /etc, as tmpfs writes it.
const etcMemory = "20%"

// etcState is the record beside the local changes to /etc.
type etcState struct {
	// RootDigest is the root that they were last used over.
	RootDigest fsverity.Digest `json:"root_digest"`
}

const (
	etcStateName = "record.json"
	etcStateMax  = 4096
)

// furnishEtc mounts the local changes to /etc over the root image's, if they are to outlive the
// boot, and puts the kept files back. A disk that fails leaves a node with the root image's /etc.
func (r *Root) furnishEtc(ctx context.Context, root *switchroot.Root) error {
	r.facts.Etc = Ephemeral
	changes := filepath.Join(r.facts.UpperDir, etcName)
	if r.spec.Etc == Persistent {
		err := r.mountEtc(ctx, root)
		if ctx.Err() != nil {
			return err
		}
		if err != nil {
			r.spec.Remark(fmt.Sprintf("/etc is the root image's, without the local changes: %v", err), fault.HintOf(err))
		} else {
			changes = filepath.Join(r.etcDir(), upperName)
		}
	}
	r.putKept(changes)
	return nil
}

func (r *Root) etcDir() string { return filepath.Join(r.spec.stateDir(), etcName) }

// mountEtc covers the root's /etc. Changes that can't go to the disk go to memory; those that are
// on the disk are seen all the same.
func (r *Root) mountEtc(ctx context.Context, root *switchroot.Root) error {
	image, drop, err := r.copyEtc(ctx)
	if err != nil {
		return err
	}
	defer drop()
	if !r.spec.PersistReadOnly {
		if err := r.dropDerivedOfEtc(ctx); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.derivedLeft = true
			r.spec.Remark(fmt.Sprintf("what programs made in /etc of another root image stays: %v", err), fault.HintOf(err))
		}
		err := r.attachEtc(root, image)
		if err == nil {
			r.facts.Etc = Persistent
			r.settleEtc()
			return nil
		}
		r.spec.Remark(fmt.Sprintf("changes to /etc end with this boot: %v", err), fault.HintOf(err))
	} else {
		r.spec.Remark("changes to /etc end with this boot: the disk can't be written", "")
	}
	lowers := []*os.File{image}
	switch kept, err := openDir(filepath.Join(r.etcDir(), upperName)); {
	case err == nil:
		defer kept.Close()
		lowers = []*os.File{kept, image}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return r.attachLayers(root, etcName, lowers...)
}

// attachEtc mounts the copy of the image's /etc with the changes on the disk over it.
func (r *Root) attachEtc(root *switchroot.Root, image *os.File) error {
	_, err := os.Lstat(filepath.Join(r.etcDir(), upperName))
	fresh := errors.Is(err, fs.ErrNotExist)
	l, err := r.diskLayer(r.etcDir(), 0o755)
	if err != nil {
		return err
	}
	defer l.close()
	if fresh {
		if err := likeDir(l.upper, image); err != nil {
			return err
		}
	}
	m, err := mount.Layers(mount.LayersSpec{Source: r.source(etcName), Lowers: []*os.File{image}, Upper: l.upper, Work: l.work})
	if err != nil {
		return err
	}
	defer m.Close()
	return root.Attach(m, etcName)
}

// copyEtc copies the union's /etc into a tmpfs of its own and returns the copy, as copyOfEtc does.
func (r *Root) copyEtc(ctx context.Context) (image *os.File, drop func(), err error) {
	source, err := openDir(filepath.Join(r.spec.At, etcName))
	if err != nil {
		return nil, nil, fmt.Errorf("copy /etc of the root image: %w", err)
	}
	defer source.Close()
	return copyOfEtc(ctx, source, filepath.Join(r.spec.Scratch, etcName), r.spec.Remark)
}

// copyOfEtc copies a directory into a tmpfs of its own, which is attached at a path meanwhile, and
// returns the copy. drop takes the tmpfs out of the tree; an overlay that was mounted over it keeps
// it. A file that can't be read is no reason to do without all others: its copy can't be opened, as
// the file itself.
func copyOfEtc(ctx context.Context, source *os.File, at string, remark func(text, hint string)) (image *os.File, drop func(), err error) {
	if err := os.MkdirAll(at, 0o700); err != nil {
		return nil, nil, err
	}
	m, err := mount.New("tmpfs", mount.NoDev, mount.String("mode", "755"), mount.String("size", etcMemory))
	if err != nil {
		return nil, nil, err
	}
	defer m.Close()
	if err := m.Attach(at); err != nil {
		return nil, nil, err
	}
	drop = func() {
		if image != nil {
			image.Close()
		}
		detachAt(at)
		_ = os.Remove(at)
	}
	damaged := func(path string, err error) {
		remark(fmt.Sprintf("/etc/%s can't be read: %v", path, err), "powernode-agent status names the module that it belongs to")
	}
	if image, err = openDir(at); err == nil {
		err = switchroot.CopyTree(ctx, source, image, switchroot.CopyOptions{Damaged: damaged})
	}
	if err != nil {
		drop()
		return nil, nil, fmt.Errorf("copy /etc of the root image: %w", err)
	}
	return image, drop, nil
}

// settleEtc counts the conflicts between local changes and a new root image, says so, and remembers
// the image. Nothing of it is worth a boot.
func (r *Root) settleEtc() {
	if err := r.settle(); err != nil {
		r.spec.Remark(fmt.Sprintf("what the root image changed beneath the local changes to /etc isn't known: %v", err), fault.HintOf(err))
	}
	if n := r.facts.EtcConflicts; n > 0 {
		r.spec.Remark(fmt.Sprintf("%d files of /etc were changed here and by the root image: the local ones stay", n), "")
	}
}

func (r *Root) settle() error {
	dir, err := durable.OpenDir(r.etcDir(), r.spec.Hook)
	if err != nil {
		return err
	}
	defer dir.Close()
	var last etcState
	err = dir.ReadJSON(etcStateName, etcStateMax, &last)
	switch {
	case err == nil && last.RootDigest == r.spec.RootDigest:
		return nil
	case err == nil:
		r.facts.EtcConflicts, err = r.countConflicts(last.RootDigest)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if r.derivedLeft {
		return err // the next boot drops it
	}
	return errors.Join(err, dir.WriteJSON(etcStateName, etcState{RootDigest: r.spec.RootDigest}, 0o600, "etc-record"))
}

// openDir opens a directory, not through a symlink at its end.
func openDir(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// likeDir gives a directory the mode and owner of another.
func likeDir(dir, other *os.File) error {
	var s unix.Stat_t
	if err := unix.Fstat(int(other.Fd()), &s); err != nil {
		return fmt.Errorf("look at %s: %w", other.Name(), err)
	}
	err := errors.Join(dir.Chown(int(s.Uid), int(s.Gid)), unix.Chmod("/proc/self/fd/"+strconv.Itoa(int(dir.Fd())), s.Mode&0o7777))
	runtime.KeepAlive(dir)
	return err
}
