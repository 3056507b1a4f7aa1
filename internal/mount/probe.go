package mount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

// probeVerity finds out whether files in dir can have fs-verity. Where none can be made, because the
// file system is full or can only be read, it goes by what the kernel says of the directory: a disk that is
// full must not lower the integrity level.
func probeVerity(dir string) error {
	err := tryVerity(dir)
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.EROFS) {
		return err
	}
	d, openErr := os.Open(dir)
	if openErr != nil {
		return openErr
	}
	defer d.Close()
	// The same is said of a file without a digest (FS_IOC_MEASURE_VERITY).
	if _, err = fsverity.Measure(d); errors.Is(err, fsverity.ErrNotEnabled) {
		return nil
	}
	return err
}

// tryVerity enables fs-verity on a file without a name.
func tryVerity(dir string) error {
	f, err := unnamedFile(dir, []byte("powernode"))
	if err != nil {
		return err
	}
	defer f.Close()
	// Enabling wants a descriptor for reading and no writer anywhere (FS_IOC_ENABLE_VERITY).
	fd, err := unix.Open(procPath(f), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open an unnamed file: %w", err)
	}
	r := os.NewFile(uintptr(fd), "a file in "+dir)
	defer r.Close()
	f.Close()
	if err := fsverity.Enable(r); err != nil {
		return err
	}
	_, err = fsverity.Measure(r)
	return err
}

func probeEROFSFromFile(dir string) error {
	f, err := unnamedFile(dir, emptyImage())
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := erofsFromFile(f, 0)
	if err != nil {
		return err
	}
	return m.Close()
}

func probeEROFSByLoop() error {
	fd, err := unix.MemfdCreate("powernode-probe", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "powernode-probe")
	defer f.Close()
	if _, err := f.Write(emptyImage()); err != nil {
		return err
	}
	m, err := erofsByLoop(f, 0)
	if err != nil {
		return err
	}
	return m.Close()
}

// probeBeneath calls move_mount(2) with descriptors that can't be: a kernel that doesn't know the
// flag refuses it (EINVAL) before it looks at them (EBADF).
func probeBeneath() error {
	err := unix.MoveMount(-1, "", -1, "", moveMountBeneath|unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err == unix.EBADF {
		return nil
	}
	return fmt.Errorf("move_mount: %w", err)
}

// probeOverlay tells an overlay that parses options one by one (6.5) from an older one, to which
// the new mount interface only hands a string at the end: that one takes any option at first.
func probeOverlay() error {
	c, err := openContext("overlay")
	if err != nil {
		return err
	}
	defer c.close()
	if c.set(String("powernode-no-such-option", "x")) == nil {
		return fmt.Errorf("this kernel's overlay is older than Linux 6.5: %w", unix.EOPNOTSUPP)
	}
	return nil
}

// probeOptions has overlay parse options and mounts nothing.
func probeOptions(options ...Option) error {
	c, err := openContext("overlay")
	if err != nil {
		return err
	}
	defer c.close()
	for _, o := range options {
		if err := c.set(o); err != nil {
			return err
		}
	}
	return nil
}

// probeDataLayers parses both ways of naming a data-only layer.
func probeDataLayers() error {
	if probeOptions(String("lowerdir+", "/"), String("datadir+", "/")) == nil {
		return nil
	}
	return probeOptions(String("lowerdir", "/::/"))
}

// probeDetached makes an overlay of two directories of a tmpfs that is attached nowhere. Kernels
// that can't do that would say so in their log each time; they can't clone a detached mount
// either, and refuse that quietly.
func probeDetached() error {
	m, err := New("tmpfs", 0, String("size", "64k"))
	if err != nil {
		return err
	}
	defer m.Close()
	clone, err := Clone(m.f, false)
	if err != nil {
		return err
	}
	clone.Close()
	var layers []Option
	for _, name := range []string{"a", "b"} {
		path := procPath(m.f) + "/" + name
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		layers = append(layers, String("lowerdir+", path))
	}
	o, err := New("overlay", ReadOnly, layers...)
	if err != nil {
		return err
	}
	return o.Close()
}

// unnamedFile makes a file that has no name and is gone when it is closed.
func unnamedFile(dir string, data []byte) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make an unnamed file: %w", err)
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
