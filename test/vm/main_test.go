package vm

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/test/lab"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// hostAddress is where guests find the loopback of the tests' network namespace. The loopback has
// this address too, so that platform, operators and nodes use the same one.
const hostAddress = "10.0.2.2"

// isolatedEnv marks the process whose network and mounts are the tests' own.
const isolatedEnv = "POWERNODE_VM_ISOLATED"

// TestMain builds the programs once and runs the tests in a mount and a network namespace of their
// own: guests reach what the tests serve, and nothing else.
func TestMain(m *testing.M) {
	// One machine for each processor of a small machine: more only makes all of them slower.
	if err := flag.Set("test.parallel", "2"); err != nil {
		panic(err)
	}
	os.Exit(lab.Main(func() int {
		if os.Getenv(isolatedEnv) != "" || os.Geteuid() != 0 {
			return m.Run()
		}
		return isolate()
	}))
}

// isolate runs the tests again in a child with its own namespaces, and returns the exit code.
func isolate() int {
	runtime.LockOSThread() // Pdeathsig is about the thread that starts the child
	child := exec.Command("/proc/self/exe", os.Args[1:]...)
	child.Env = append(os.Environ(), isolatedEnv+"=1")
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := child.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, "run the tests in namespaces of their own:", err)
		return 1
	default:
		return 0
	}
}

// need ends the test where no machine can be run, as oracle.Missing does. The first one sets up the
// network of the tests' namespace.
func need(t testing.TB) {
	t.Helper()
	if os.Getenv(isolatedEnv) == "" {
		oracle.Missing(t, "virtual machines get a network namespace of their own, for which the tests must be run as root")
	}
	qemu.Need(t)
	networkOnce.Do(func() { setUpNetwork(t) })
}

var networkOnce sync.Once

func setUpNetwork(t testing.TB) {
	t.Helper()
	qemu.Host(t, "ip", "link", "set", "lo", "up")
	qemu.Host(t, "ip", "address", "add", hostAddress+"/32", "dev", "lo")
	// QEMU's user-mode network passes the guests' questions on to the host's name server.
	conf := filepath.Join(os.Getenv(lab.RunEnv), "resolv.conf")
	lab.Write(t, conf, []byte("nameserver 127.0.0.1\n"), 0o644)
	if err := unix.Mount(conf, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
}

// whole ends a test that is for `make test-vm` only: a plain `go test` runs the few without it.
func whole(t testing.TB) {
	t.Helper()
	if os.Getenv("POWERNODE_VM") != "all" {
		t.Skip("takes a while; make test-vm runs it (POWERNODE_VM=all)")
	}
}

// freePort returns a port that nobody listens on.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
