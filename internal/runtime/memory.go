package runtime

import (
	"bytes"
	"context"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How often memory is given back, and how soon at first: most of what a service touches, it touches while it starts.
const (
	trimEvery = 2 * time.Minute
	trimFirst = time.Minute
)

// Trim is the loop that gives back what the service doesn't need while it is idle: free pages of the heap, and the mapping of pages of
// the program's own file that were used at its start, which come back where they are needed.
type Trim struct{}

// Run implements Loop.
func (Trim) Run(ctx context.Context, alive func(time.Duration)) {
	for wait := trimFirst; ; wait = trimEvery {
		alive(wait)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		alive(choreTime)
		debug.FreeOSMemory()
		unmapProgram()
	}
}

// unmapProgram has the kernel forget which pages of the program's file are mapped, where those can't be written to: what is in them is
// in the file, and is mapped again with the next access. That it doesn't is no harm.
func unmapProgram() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range bytes.Lines(maps) {
		if start, length, ok := readOnlyOf(string(line), program); ok {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, length, unix.MADV_DONTNEED)
		}
	}
}

// readOnlyOf returns where a private mapping of the program's file lies that can't be written to, by a line of /proc/PID/maps (proc_pid_maps(5)):
// "00400000-01a2b000 r-xp 00000000 00:1a 1234    /run/powernode/bin/powernode-agent".
func readOnlyOf(line, program string) (start, length uintptr, ok bool) {
	fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 6)
	if len(fields) < 6 || strings.TrimLeft(fields[5], " ") != program || len(fields[1]) != 4 || fields[1][1] != '-' || fields[1][3] != 'p' {
		return 0, 0, false
	}
	from, to, _ := strings.Cut(fields[0], "-")
	a, err1 := strconv.ParseUint(from, 16, strconv.IntSize)
	b, err2 := strconv.ParseUint(to, 16, strconv.IntSize)
	if err1 != nil || err2 != nil || b <= a {
		return 0, 0, false
	}
	return uintptr(a), uintptr(b - a), true
}
