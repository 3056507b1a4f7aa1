package rootfs

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Usage is how full a file system is.
type Usage struct {
	UsedBytes  uint64 `json:"used_bytes"`
	TotalBytes uint64 `json:"total_bytes"` // what used and free make together; reserved blocks don't count
	UsedFiles  uint64 `json:"used_files"`
	TotalFiles uint64 `json:"total_files"` // 0 where the file system has no limit
}

// usageOf returns how full the file system of a path is. That of the root of a union is its
// writable layer's.
func usageOf(path string) (Usage, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return Usage{}, fmt.Errorf("look how full %s is: %w", path, err)
	}
	size := uint64(s.Frsize)
	if size == 0 {
		size = uint64(s.Bsize)
	}
	used := s.Blocks - s.Bfree
	return Usage{
		UsedBytes: used * size, TotalBytes: (used + s.Bavail) * size,
		UsedFiles: s.Files - s.Ffree, TotalFiles: s.Files,
	}, nil
}

// Percent returns how much of it is used, of bytes or of files, whichever is more; rounded up, so
// that 100 is no room at all.
func (u Usage) Percent() int {
	return max(percent(u.UsedBytes, u.TotalBytes), percent(u.UsedFiles, u.TotalFiles))
}

func percent(used, total uint64) int {
	if total == 0 {
		return 0
	}
	if used >= total {
		return 100
	}
	return int((float64(used)*100)/float64(total) + 0.999)
}

// Fullness grades a Usage.
type Fullness string

// The grades. Filling is told to people while there is time, Full shortly before writes fail.
const (
	Roomy   Fullness = "ok"
	Filling Fullness = "filling"
	Full    Fullness = "full"
)

// From so many percent on a grade holds. It is left only where the usage is slack percent below, so
// that one that goes up and down is not reported each time.
const (
	fillingFrom = 80
	fullFrom    = 90
	slack       = 3
)

// Grade returns the grade of u for someone who was last told another; "" is nothing.
func (last Fullness) Grade(u Usage) Fullness {
	from := func(limit int, grades ...Fullness) bool {
		for _, g := range grades {
			if last == g {
				limit -= slack
			}
		}
		return u.Percent() >= limit
	}
	switch {
	case from(fullFrom, Full):
		return Full
	case from(fillingFrom, Full, Filling):
		return Filling
	default:
		return Roomy
	}
}

// Warning returns what a person should know of a grade, and what to do about a writable layer of
// that kind; "" of one that is Roomy.
func (f Fullness) Warning(u Usage, kind UpperKind) (text, hint string) {
	switch {
	case f == Roomy || f == "":
		return "", ""
	case kind == OnPersist:
		hint = "make room on the disk, which holds the writable layer too"
	default:
		hint = "remove files that were written outside of /var and /persist, reboot, or give it more room with powernode.upper_size"
	}
	return fmt.Sprintf("the writable layer of the root is %d %% full", u.Percent()), hint
}

// Room is how full the writable layer of a root is, as it is told to people.
type Room struct {
	Usage
	// AvailableBytes is what can still be written: what is free of it, or less where it lies in memory
	// and the machine has less. Percent and Fullness go by that.
	AvailableBytes uint64
	Percent        int
	Fullness       Fullness
	kind           UpperKind
}

// RoomOf looks how full the writable layer of the root at path is, "/" on a node, which is of that
// kind, for someone who was last told a grade.
func RoomOf(path string, kind UpperKind, last Fullness) (Room, error) {
	u, err := usageOf(path)
	if err != nil {
		return Room{}, err
	}
	var m Memory
	if kind == InMemory {
		// Without a measure of the memory, what the layer itself says is worth telling.
		m, _ = ReadMemory()
	}
	return roomOf(u, kind, m, last), nil
}

func roomOf(u Usage, kind UpperKind, m Memory, last Fullness) Room {
	r := Room{Usage: u, kind: kind}
	if u.TotalBytes > u.UsedBytes {
		r.AvailableBytes = u.TotalBytes - u.UsedBytes
	}
	if kind == InMemory && m.Available > 0 {
		r.AvailableBytes = min(r.AvailableBytes, uint64(m.Available)+uint64(m.swapFree))
	}
	r.Percent, r.Fullness = r.really().Percent(), last.Grade(r.really())
	return r
}

// really is the usage of a layer that is as large as it can become.
func (r Room) really() Usage {
	u := r.Usage
	u.TotalBytes = u.UsedBytes + r.AvailableBytes
	return u
}

// Warning returns what a person should know, and what to do; "" where there is room.
func (r Room) Warning() (text, hint string) {
	text, hint = r.Fullness.Warning(r.really(), r.kind)
	if text != "" && r.Usage.Percent() < r.Percent {
		text += ": it lies in memory, of which the machine has little left"
		hint = "remove files that were written outside of /var and /persist, or end programs that take much memory"
	}
	return text, hint
}
