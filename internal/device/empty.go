package device

import (
	"bytes"
	"fmt"
	"io"
)

// The parts of a device that must hold zeros for it to count as empty. Every partition table, file
// system, RAID, LVM, LUKS or swap that Linux knows has a signature in one of them.
const (
	EmptyHead = 1 << 20  // its first bytes
	EmptyTail = 64 << 10 // and its last
)

const chunk = 64 << 10

// IsEmpty reports whether the first MiB and the last 64 KiB of a device of that size hold zeros
// only. A device that has less than both is never empty.
func IsEmpty(r io.ReaderAt, size int64) (bool, error) {
	if size < EmptyHead+EmptyTail {
		return false, nil
	}
	for _, part := range [...]struct{ from, to int64 }{{0, EmptyHead}, {size - EmptyTail, size}} {
		if ok, err := zeros(r, part.from, part.to); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// zeros reports whether all bytes of a range, whose length is a multiple of chunk, are there and zero.
func zeros(r io.ReaderAt, from, to int64) (bool, error) {
	buf, nothing := make([]byte, chunk), make([]byte, chunk)
	for at := from; at < to; at += chunk {
		if n, err := r.ReadAt(buf, at); n < chunk {
			return false, fmt.Errorf("read %d bytes at %d: %w", chunk, at, err)
		}
		if !bytes.Equal(buf, nothing) {
			return false, nil
		}
	}
	return true, nil
}
