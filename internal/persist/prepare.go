package persist

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/powernode/powernode-agent/internal/device"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// markText begins the first sector of a device whose preparation isn't finished; the rest of the
// sector is zero. ext4 leaves that sector alone, and a sector is written at once or not at all.
const markText = "powernode: this device is being prepared and holds nothing yet\n"

var mark = append([]byte(markText), make([]byte, 512-len(markText))...)

// state is how far the preparation of a device has got.
type state int

const (
	untouched  state = iota // nothing of ours, or something that is in use
	unfinished              // it was begun: there is nothing on the device
	unmarked                // complete, but for the mark that is to be taken away
)

// readState tells the states apart by the first 2 KiB of a device. A file system that somebody else
// made later has its own first sector or superblock.
func readState(r io.ReaderAt) (state, error) {
	b := make([]byte, superOffset+superSize)
	if n, err := r.ReadAt(b, 0); n < len(b) {
		return untouched, fmt.Errorf("read the first %d bytes: %w", len(b), err)
	}
	switch {
	case !bytes.Equal(b[:len(mark)], mark):
		return untouched, nil
	case wholeSuper(b[superOffset:]):
		return unmarked, nil
	default:
		return unfinished, nil
	}
}

// disk is what a file system is written to.
type disk interface {
	io.WriterAt
	// Zero makes a range hold zeros.
	Zero(offset, length int64) error
	// Sync returns when all that was written is on the medium.
	Sync() error
}

// prepare writes the seed to d. Each step is on the medium before the next one begins: the mark, all
// but the first block, the superblock, the mark's removal. So a power cut leaves nothing, a device
// that is known to be unfinished, or a complete file system, with or without the mark.
func prepare(ctx context.Context, d disk, s *seed, hook durable.Hook) error {
	step := func(op string, do func() error) error {
		durable.Reach("persist:" + op)
		if hook != nil {
			if err := hook("persist:" + op); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := do(); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		return nil
	}
	synced := func(op string, do func() error) error {
		if err := step(op, do); err != nil {
			return err
		}
		return step(op+"-sync", d.Sync)
	}
	write := func(p []byte, offset int64) error {
		_, err := d.WriteAt(p, offset)
		return err
	}
	if err := synced("mark", func() error { return write(mark, 0) }); err != nil {
		return err
	}
	if err := synced("write", func() error { return s.writeRest(ctx, d, write) }); err != nil {
		return err
	}
	if err := synced("superblock", func() error {
		return write(s.extents[0].data[superOffset:][:superSize], superOffset)
	}); err != nil {
		return err
	}
	return synced("unmark", func() error { return write(make([]byte, len(mark)), 0) })
}

// zeroAtOnce is how much is set to zero before ctx is asked again; some disks take seconds for it.
const zeroAtOnce = 16 << 20

// writeRest writes all of the seed but its first block.
func (s *seed) writeRest(ctx context.Context, d disk, write func([]byte, int64) error) error {
	for i, x := range s.extents {
		if i == 0 {
			x = extent{offset: s.blockSize, length: x.length - s.blockSize, data: x.data[s.blockSize:]}
		}
		if x.data != nil {
			if err := write(x.data, x.offset); err != nil {
				return err
			}
			continue
		}
		for x.length > 0 {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n := min(x.length, zeroAtOnce)
			if err := d.Zero(x.offset, n); err != nil {
				return err
			}
			x.offset, x.length = x.offset+n, x.length-n
		}
	}
	return nil
}

// errFilled says that a device has something on it now.
var errFilled = errors.New("it isn't empty any more")

// errForeign says that a device was made use of after its preparation was cut off. RAID, LVM and caches
// leave the first sector alone, and with it the mark.
var errForeign = fault.New(fault.Refuse, fault.Destructive, "wipe it if nothing on it is needed, or name another device",
	"its preparation was cut off, and there is something else on it now")

// only reports whether a device of that size, whose preparation was cut off, holds nothing but zeros and
// what s would write, sector by sector, where device.IsEmpty looks for something.
func (s *seed) only(r io.ReaderAt, size int64) (bool, error) {
	if size < MinSize {
		return false, nil
	}
	const chunk = 64 << 10
	there, ours := make([]byte, chunk), make([]byte, chunk)
	for at := int64(0); at < size; at += chunk {
		if at == device.EmptyHead {
			at = size - device.EmptyTail
		}
		if n, err := r.ReadAt(there, at); n < chunk {
			return false, fmt.Errorf("read %d bytes at %d: %w", chunk, at, err)
		}
		s.copyTo(ours, at)
		if at == 0 {
			copy(there, make([]byte, len(mark))) // which is known to be there
			// Each preparation has an identity of its own.
			forget(there[superOffset:][:superSize])
			forget(ours[superOffset:][:superSize])
		}
		for i := 0; i < chunk; i += len(mark) {
			got := there[i : i+len(mark)]
			if !bytes.Equal(got, ours[i:i+len(mark)]) && !bytes.Equal(got, make([]byte, len(mark))) {
				return false, nil
			}
		}
	}
	return true, nil
}

// forget takes the identity out of a superblock.
func forget(sb []byte) {
	clear(sb[sbUUID:][:16])
	clear(sb[sbHashSeed:][:16])
	clear(sb[sbChecksum:])
}
