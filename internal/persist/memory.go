package persist

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/device"
	"github.com/powernode/powernode-agent/internal/mount"
)

// fromMemory mounts a file system in memory at o.At, half as large as the memory. Where the kernel
// can do fs-verity, it is an ext4 on a loop device on a file in a tmpfs, since a tmpfs has no
// fs-verity and a node that must enforce what it reads couldn't boot from it; else a tmpfs.
func (o Options) fromMemory(ctx context.Context, p *Persist) error {
	const hint = "attach a disk for what should outlive the boot"
	half, err := halfOfMemory()
	if err != nil {
		return err
	}
	verityErr := o.memoryExt4(ctx, half)
	if verityErr == nil {
		*p = Persist{Path: o.At, Kind: Memory, FSType: "ext4", Size: half, Verity: true, Remarks: p.Remarks}
		p.remark(hint, "there is no persist disk: the node works from memory (%s), and forgets everything at its end", size(half))
		return nil
	}
	m, err := mount.New("tmpfs", attributes, mount.String("mode", "0755"), mount.String("size", strconv.FormatInt(half, 10)))
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.Attach(o.At); err != nil {
		return err
	}
	*p = Persist{Path: o.At, Kind: Memory, FSType: "tmpfs", Size: half, Remarks: p.Remarks}
	p.remark(hint, "there is no persist disk: the node works from memory (%s), and forgets everything at its end; its kernel can't enforce what it reads there (%v)", size(half), verityErr)
	return nil
}

// halfOfMemory returns half of the machine's memory in whole MiB, what tmpfs would take, too.
func halfOfMemory() (int64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("ask how much memory there is: %w", err)
	}
	return int64(info.Totalram * uint64(info.Unit) / 2 &^ (1<<20 - 1)), nil
}

// verityFeature is there where the kernel's ext4 has fs-verity (Documentation/ABI/testing/sysfs-fs-ext4).
const verityFeature = "/sys/fs/ext4/features/verity"

// memoryExt4 mounts an ext4 in memory at o.At. It has no journal, which would only take memory, and
// gives back the memory of what is removed (discard). Nothing but the mount itself refers to the
// tmpfs, the file and the loop device: they go with it.
func (o Options) memoryExt4(ctx context.Context, bytes int64) error {
	if _, err := os.Stat(verityFeature); err != nil {
		return errors.New("it has no fs-verity")
	}
	if bytes < MinSize {
		return fmt.Errorf("%s are too few for an ext4", size(bytes))
	}
	image, err := memoryImage(bytes)
	if err != nil {
		return err
	}
	defer image.Close()
	loop, err := mount.LoopDevice(image, false)
	if errors.Is(err, os.ErrNotExist) && o.Load != nil {
		if err = o.Load(ctx, "loop"); err == nil {
			loop, err = mount.LoopDevice(image, false)
		}
	}
	if err != nil {
		return err
	}
	defer loop.Close()
	m, err := mount.New("ext4", attributes, mount.String("source", loop.Name()), mount.Flag("discard"))
	if err != nil {
		return err
	}
	defer m.Close()
	is := device.Superblock{Size: MinSize, BlockSize: seedBlock}
	if _, err := grow(ctx, "/proc/self/fd/"+strconv.Itoa(int(m.File().Fd())), is, bytes, time.Now().Add(defaultGrow)); err != nil {
		return fmt.Errorf("grow it: %w", err)
	}
	return m.Attach(o.At)
}

// memoryName is the name of the image in its tmpfs.
const memoryName = "powernode-persist-in-memory.ext4"

// inMemory reports whether a device is the loop device of such an image.
func inMemory(device string) bool {
	name, ok := strings.CutPrefix(device, "/dev/loop")
	if !ok {
		return false
	}
	backing, err := os.ReadFile("/sys/block/loop" + name + "/loop/backing_file")
	return err == nil && filepath.Base(strings.TrimSpace(string(backing))) == memoryName
}

// memoryImage returns a file with the seed in a tmpfs of its own that has no place in the file tree.
func memoryImage(bytes int64) (*os.File, error) {
	m, err := mount.New("tmpfs", attributes, mount.String("mode", "0700"), mount.String("size", strconv.FormatInt(bytes, 10)))
	if err != nil {
		return nil, err
	}
	defer m.Close()
	dir, err := m.OpenRoot()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := dir.OpenFile(memoryName, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := writeImage(f, bytes); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// writeImage writes the seed to a new file, whose holes are its zeros.
func writeImage(f *os.File, bytes int64) error {
	s, err := readSeed(packedSeed)
	if err != nil {
		return err
	}
	s.dropJournal()
	if err := s.identify(); err != nil {
		return err
	}
	for _, x := range s.extents {
		if x.data == nil {
			continue
		}
		if _, err := f.WriteAt(x.data, x.offset); err != nil {
			return err
		}
	}
	return f.Truncate(bytes)
}
