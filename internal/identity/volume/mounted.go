package volume

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/powernode/powernode-agent/internal/mount"
)

// mounted is a file system that the kernel reads, in a mount that is nowhere.
type mounted struct {
	m    *mount.Mount
	root *os.Root
}

// mountVolume mounts the device. Its journal isn't replayed: nothing is written to it.
func mountVolume(device, fsType string) (*mounted, error) {
	options := []mount.Option{mount.String("source", device), mount.Flag("ro")}
	switch fsType {
	case "ext4":
		options = append(options, mount.Flag("noload"))
	case "xfs":
		options = append(options, mount.Flag("norecovery"))
	case "btrfs":
		options = append(options, mount.String("rescue", "nologreplay"))
	}
	m, err := mount.New(fsType, mount.ReadOnly|mount.NoDev|mount.NoSUID|mount.NoExec, options...)
	if err != nil {
		return nil, err
	}
	root, err := m.OpenRoot()
	if err != nil {
		_ = m.Close()
		return nil, err
	}
	return &mounted{m, root}, nil
}

// readFile follows no symlink: os.Root keeps it inside, and a boot partition has no need for one.
func (m *mounted) readFile(name string, limit int64) ([]byte, error) {
	f, err := m.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s isn't a regular file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", name, limit)
	}
	return b, nil
}

func (m *mounted) Close() error {
	_ = m.root.Close()
	return m.m.Close()
}
