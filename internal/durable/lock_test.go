package durable

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
)

func TestLock(t *testing.T) {
	d, err := OpenDir(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	first, err := d.TryLock("l", Shared)
	if err != nil {
		t.Fatal(err)
	}
	second, err := d.TryLock("l", Shared)
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.TryLock("l", Exclusive)
	held, ok := errors.AsType[*LockedError](err)
	if !ok || fault.KindOf(err) != fault.Retry {
		t.Fatalf("exclusive beside two that share: %v", err)
	}
	for _, h := range held.Holders {
		if h.PID != os.Getpid() || h.Command == "" {
			t.Errorf("holder %+v, want process %d", h, os.Getpid())
		}
	}
	if len(held.Holders) != 2 {
		t.Errorf("holders %+v, want two", held.Holders)
	}
	second.Unlock()
	if err := first.Try(Exclusive); err != nil {
		t.Errorf("alone: %v", err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := d.Lock(ctx, "l", Shared); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a lock that is kept: %v", err)
	}
	go func() {
		time.Sleep(10 * time.Millisecond)
		first.Unlock()
	}()
	third, err := d.Lock(t.Context(), "l", Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	third.Unlock()
}

// TestLockForgotten: nobody refers to the lock any more, and it is held until the process ends all the same.
func TestLockForgotten(t *testing.T) {
	d, err := OpenDir(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.TryLock("l", Exclusive); err != nil {
		t.Fatal(err)
	}
	// A file that was forgotten after it is closed: so the collector has seen both.
	r, _, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	closed := make(chan error, 1)
	go func() {
		_, err := r.Read(make([]byte, 1))
		closed <- err
	}()
	for seen := false; !seen; {
		runtime.GC()
		select {
		case <-closed:
			seen = true
		case <-time.After(time.Millisecond):
		}
	}
	if _, err := d.TryLock("l", Exclusive); fault.KindOf(err) != fault.Retry {
		t.Errorf("%v: want it held", err)
	}
}

// TestUnlockBesideAFork: a program that is just started has a copy of the lock's file until its exec.
func TestUnlockBesideAFork(t *testing.T) {
	d, err := OpenDir(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, err := d.TryLock("l", Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	forked, err := unix.Dup(int(l.f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(forked)
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	again, err := d.TryLock("l", Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	again.Unlock()
}

// TestLockDiesWithItsHolder kills a process that holds the lock.
func TestLockDiesWithItsHolder(t *testing.T) {
	if dir := os.Getenv("DURABLE_LOCK_DIR"); dir != "" {
		d, err := OpenDir(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		l, err := d.TryLock("l", Exclusive)
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("locked\n")
		time.Sleep(time.Minute) // with nothing else to wait for, select {} would be a deadlock
		l.Unlock()
		return
	}
	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=^TestLockDiesWithItsHolder$")
	child.Env = append(os.Environ(), "DURABLE_LOCK_DIR="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Process.Kill()
	if _, err := out.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDir(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, err = d.TryLock("l", Shared)
	held, ok := errors.AsType[*LockedError](err)
	if !ok || len(held.Holders) != 1 || held.Holders[0].PID != child.Process.Pid {
		t.Errorf("%v: want it held by process %d", err, child.Process.Pid)
	}
	if !strings.Contains(err.Error(), filepath.Join(dir, "l")+" is locked by process ") {
		t.Errorf("message %q", err)
	}
	child.Process.Kill()
	child.Wait()
	l, err := d.TryLock("l", Exclusive)
	if err != nil {
		t.Fatalf("after its holder was killed: %v", err)
	}
	l.Unlock()
}

func TestFlockHolders(t *testing.T) {
	table := `1: FLOCK  ADVISORY  WRITE 100 fe:00:5678 0 EOF
2: FLOCK  ADVISORY  READ  200 fe:00:5678 0 EOF
2: -> FLOCK  ADVISORY  WRITE 300 fe:00:5678 0 EOF
3: POSIX  ADVISORY  WRITE 400 fe:00:5678 0 EOF
4: FLOCK  ADVISORY  WRITE 500 fe:01:5678 0 EOF
5: FLOCK  ADVISORY  WRITE -1 fe:00:5678 0 EOF
6: FLOCK
`
	if got := flockHolders(strings.NewReader(table), 0xfe, 0, 5678); !slices.Equal(got, []int{100, 200}) {
		t.Errorf("%v", got)
	}
}

func FuzzFlockHolders(f *testing.F) {
	f.Add("1: FLOCK  ADVISORY  WRITE 100 fe:00:5678 0 EOF\n", uint32(0xfe), uint32(0), uint64(5678))
	f.Fuzz(func(t *testing.T, table string, major, minor uint32, inode uint64) {
		for _, pid := range flockHolders(strings.NewReader(table), major, minor, inode) {
			if pid <= 0 || !strings.Contains(table, "FLOCK") {
				t.Errorf("holder %d out of %q", pid, table)
			}
		}
	})
}

// TestLinkByProc takes the way that LinkUnnamed goes where the kernel wants a capability for the
// other one.
func TestLinkByProc(t *testing.T) {
	dir := t.TempDir()
	d, err := OpenDir(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	f, err := d.Temp(".", 0o400, "x")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := linkByProc(f, d.File(), "name"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "name")); err != nil {
		t.Error(err)
	}
}
