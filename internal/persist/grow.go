package persist

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/device"
)

// resizeFS is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64), which x/sys lacks: the file system grows to
// that number of its own blocks while it is mounted (fs/ext4/resize.c). It needs CAP_SYS_RESOURCE.
const resizeFS = 0x40086610

const (
	// growSlack is the difference in size that isn't worth it: the kernel leaves out a last group
	// that its own tables would fill.
	growSlack = 16 << 20
	// growAtOnce bounds one system call, which can't be interrupted: a group's inode table is set
	// to zero, 8 MiB for each GiB. What was added by then stays, and survives a power cut.
	growAtOnce = 64 << 30
)

var errGrowLate = errors.New("there was no time for more")

// growDisk lets the file system grow to the device's size; what goes wrong is a remark.
func (o Options) growDisk(ctx context.Context, d device.Device, p *Persist) {
	s, err := probe(d.Path)
	if err != nil || s.BlockSize == 0 || d.Size-s.Size < growSlack {
		return
	}
	if err := o.hook("grow"); err != nil {
		p.remark("", "grow %s: %v", d.Path, err)
		return
	}
	limit := o.Grow
	if limit == 0 {
		limit = defaultGrow
	}
	o.say("growing the file system on %s from %s to %s", d.Path, size(s.Size), size(d.Size))
	at, err := grow(ctx, o.At, s, d.Size, time.Now().Add(limit))
	switch {
	case errors.Is(err, errGrowLate):
		p.remark("the next boot goes on with it", "the file system on %s has grown to %s of %s so far", d.Path, size(at), size(d.Size))
	case err != nil:
		p.remark("grow it with resize2fs", "the file system on %s couldn't grow from %s to %s: %v", d.Path, size(at), size(d.Size), err)
	}
}

// grow lets the ext4 at path grow from what it is to another size in steps, until the deadline, and
// returns the size that it reached.
func grow(ctx context.Context, path string, is device.Superblock, to int64, deadline time.Time) (int64, error) {
	from := is.Size
	root, err := os.Open(path)
	if err != nil {
		return from, err
	}
	defer root.Close()
	for from < to {
		switch {
		case ctx.Err() != nil:
			return from, context.Cause(ctx)
		case time.Now().After(deadline):
			return from, errGrowLate
		}
		next := min(to, from+growAtOnce)
		if to-next < growSlack {
			next = to
		}
		blocks := uint64(next / is.BlockSize)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, root.Fd(), resizeFS, uintptr(unsafe.Pointer(&blocks)))
		runtime.KeepAlive(root)
		if errno != 0 {
			return from, fmt.Errorf("ask the kernel for it: %w", errno)
		}
		from = next
	}
	return from, nil
}
