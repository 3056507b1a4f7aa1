// Package durabletest runs a piece of work on a directory once for each of its labelled
// operations, with a fault at that operation, and lets the test judge what is left.
//
// It promises to reach every operation: failing it, killing the process there, or cutting the
// power there, which it does on an ext4 of its own. It is for tests only and trusts them.
package durabletest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
)

// Scenario is a piece of work that must survive a fault at each of its operations. The work must
// do the same operations in the same order every time.
type Scenario struct {
	// Setup prepares an empty directory. It may be nil.
	Setup func(t testing.TB, dir string)
	// Run does the work. It opens what it needs with the hook, and closes it.
	Run func(dir string, hook durable.Hook) error
	// Check looks at the directory after a fault at op, the label of the operation that wasn't
	// done, or after the whole work, where op is "". err is what Run returned; nil after a kill
	// or a power cut.
	Check func(t testing.TB, dir, op string, err error)
}

// ops returns the labels of the work's operations in order, checking that it succeeds.
func (s Scenario) ops(t *testing.T) []string {
	t.Helper()
	dir := s.setup(t)
	var ops []string
	err := s.Run(dir, func(op string) error {
		ops = append(ops, op)
		return nil
	})
	if err != nil {
		t.Fatalf("without a fault: %v", err)
	}
	s.Check(t, dir, "", nil)
	return ops
}

func (s Scenario) setup(t testing.TB) string {
	t.Helper()
	dir := scratch(t)
	if s.Setup != nil {
		s.Setup(t, dir)
	}
	return dir
}

// scratchMin is how many bytes a memory filesystem must have free to be worked on.
const scratchMin = 256 << 20

// scratch returns an empty directory, in memory where there is room: nothing that fails or dies
// here depends on a disk, and the many syncs take no time there.
func scratch(t testing.TB) string {
	t.Helper()
	const memory = "/dev/shm"
	var st unix.Statfs_t
	if err := unix.Statfs(memory, &st); err != nil || st.Type != unix.TMPFS_MAGIC || st.Bavail*uint64(st.Bsize) < scratchMin {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "durabletest-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// FailEach runs the work with each operation failing with cause, in a fresh directory each time.
// The error must come back from Run.
func (s Scenario) FailEach(t *testing.T, cause error) {
	for i, op := range s.ops(t) {
		t.Run(fmt.Sprintf("%02d %s", i, op), func(t *testing.T) {
			dir := s.setup(t)
			n := 0
			err := s.Run(dir, func(string) error {
				n++
				if n-1 == i {
					return cause
				}
				return nil
			})
			if !errors.Is(err, cause) {
				t.Fatalf("%v at %s came back as: %v", cause, op, err)
			}
			s.Check(t, dir, op, err)
		})
	}
}

// The environment of a child process that is to die.
const (
	killAt  = "DURABLETEST_KILL_AT"
	killDir = "DURABLETEST_DIR"
)

// KillEach runs the work in a child process, which kills itself by SIGKILL at each operation in
// turn, in a fresh directory each time. The child is the test binary, told to run the calling
// test alone; what the test does before KillEach happens in the child, too. A test calls it once.
func (s Scenario) KillEach(t *testing.T) {
	if at, err := strconv.Atoi(os.Getenv(killAt)); err == nil {
		s.die(at)
	}
	for i, op := range s.ops(t) {
		t.Run(fmt.Sprintf("%02d %s", i, op), func(t *testing.T) {
			dir := s.setup(t)
			child := exec.Command(os.Args[0], "-test.run="+pattern(strings.TrimSuffix(t.Name(), "/"+lastElement(t.Name()))))
			child.Env = append(os.Environ(), killAt+"="+strconv.Itoa(i), killDir+"="+dir)
			var out bytes.Buffer
			child.Stdout, child.Stderr = &out, &out
			err := child.Run()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child wasn't killed at %s: %v\n%s", op, err, out.Bytes())
			}
			s.Check(t, dir, op, nil)
		})
	}
}

// die does the work in a child process and never returns.
func (s Scenario) die(at int) {
	n := 0
	err := s.Run(os.Getenv(killDir), func(string) error {
		n++
		if n-1 == at {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				panic(err)
			}
			select {}
		}
		return nil
	})
	fmt.Fprintf(os.Stderr, "the work ended after %d operations: %v\n", n, err)
	os.Exit(3)
}

func lastElement(name string) string { return name[strings.LastIndex(name, "/")+1:] }

// pattern returns the -test.run pattern that matches one test alone.
func pattern(name string) string {
	elements := strings.Split(name, "/")
	for i, e := range elements {
		elements[i] = "^" + regexp.QuoteMeta(e) + "$"
	}
	return strings.Join(elements, "/")
}
