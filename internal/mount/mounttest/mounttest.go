// Package mounttest lets tests mount, on the real kernel, without touching the machine: the whole
// test binary runs a second time as a child in a mount namespace of its own.
//
// It is for tests only. It promises that nothing mounted by a test outlives the test binary or is
// seen outside of it.
package mounttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/oracle"
)

// inside marks the child's environment.
const inside = "POWERNODE_MOUNTTEST_INSIDE"

// Main is for TestMain. It runs the tests in a child with its own mount namespace, in which all
// mounts are private, and returns the exit code. Without the right to make one, it runs them as
// they are, and NeedMounts ends those that would mount.
func Main(m *testing.M) int {
	if os.Getenv(inside) != "" || os.Geteuid() != 0 {
		return m.Run()
	}
	runtime.LockOSThread() // Pdeathsig is about the thread that starts the child
	child := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	child.Env = append(os.Environ(), inside+"=1")
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Go makes all mounts private in the child when it is asked to unshare; a namespace made by
	// clone would keep propagating to the machine's.
	child.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := child.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	case errors.Is(err, unix.EPERM):
		return m.Run()
	case err != nil:
		fmt.Fprintln(os.Stderr, "run the tests in their own mount namespace:", err)
		return 1
	default:
		return 0
	}
}

// NeedMounts ends the test where it can't mount without touching the machine, as oracle.Missing does.
func NeedMounts(t testing.TB) {
	t.Helper()
	if os.Getenv(inside) == "" {
		oracle.Missing(t, "mounting needs root (CAP_SYS_ADMIN) and a mount namespace of its own; run the tests as root")
	}
}
