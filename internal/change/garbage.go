package change

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
)

const (
	// garbageMax and garbageMin are how many bytes of garbage are left at the most, and how many are worth it.
	garbageMax = 256 << 20
	garbageMin = 32 << 20
)

// leaving says that this process leaves its garbage: the runtime has one setting for all of it.
var leaving atomic.Bool

// leaveGarbage has the runtime collect no garbage until there is a good deal of it, as far as the machine has memory to spare: a quarter
// of what is available. A change makes three trees of all files in a few hundred milliseconds and is done with them; looking through
// them again and again while they grow takes a fifth of its time. After the first collection, and after restore, it is as before.
//
// Whoever set GOGC or GOMEMLIMIT has decided that already.
func leaveGarbage(available uint64) (restore func()) {
	most := min(available/4, garbageMax)
	if most < garbageMin || os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" || !leaving.CompareAndSwap(false, true) {
		return func() {}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	percent := debug.SetGCPercent(-1)
	limit := debug.SetMemoryLimit(int64(m.Sys - m.HeapReleased + most))
	restore = sync.OnceFunc(func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
		leaving.Store(false)
	})
	// The first collection finds this. With the limit alone the runtime would go on collecting at half its time, where more is in use.
	first := new([16]*byte)
	runtime.AddCleanup(first, func(restore func()) { restore() }, restore)
	return restore
}

// availableMemory is how many bytes the kernel would give without swapping, by its own estimate; 0 where it doesn't say.
func availableMemory() uint64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(text, []byte("\nMemAvailable:"))
	fields := bytes.Fields(rest[:min(len(rest), 64)])
	if len(fields) < 2 || string(fields[1]) != "kB" {
		return 0
	}
	n, err := strconv.ParseUint(string(fields[0]), 10, 44)
	if err != nil {
		return 0
	}
	return n << 10
}
