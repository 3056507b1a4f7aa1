package delta

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Size is how much an upper holds.
type Size struct {
	// Files counts all names but those of directories and whiteouts.
	Files int    `json:"files"`
	Bytes uint64 `json:"bytes"`
	// More says that counting stopped at the limit.
	More bool `json:"more,omitempty"`
}

// SizeOf counts what an upper holds, as Scan does, without looking at marks: a metacopy, whose content isn't there,
// counts with the bytes that it takes on the disk. At most limit names are looked at.
func SizeOf(ctx context.Context, upper *os.File, limit int) (Size, error) {
	var size Size
	w := walker{ctx: ctx, limits: Limits{Entries: limit}}
	w.limits.fill()
	seen := make(map[uint64]struct{})
	w.skip = func(string, string) { size.More = true }
	w.visit = func(f found) (bool, error) {
		switch f.stat.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			return true, nil
		case unix.S_IFCHR:
			if f.stat.Rdev == 0 {
				return false, nil
			}
		}
		size.Files++
		if f.stat.Nlink > 1 {
			if _, again := seen[f.stat.Ino]; again {
				return false, nil
			}
			seen[f.stat.Ino] = struct{}{}
		}
		size.Bytes += uint64(min(max(f.stat.Size, 0), f.stat.Blocks*512))
		return false, nil
	}
	err := w.walk(upper)
	if errors.Is(err, errTooMany) {
		size.More, err = true, nil
	}
	if err != nil {
		return Size{}, fmt.Errorf("look through the writable layer: %w", err)
	}
	return size, nil
}
