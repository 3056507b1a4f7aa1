package signature

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/oracle"
)

// insideEnv marks the process that runs the tests in a network namespace of its own.
const insideEnv = "POWERNODE_TEST_INSIDE_NETNS"

// TestMain runs all tests of this package, as root, in a new network namespace in which only the
// loopback interface is up: verification must need no network, and a test must not reach for one.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(insideEnv) != "":
		if err := loopbackUp(); err != nil {
			fmt.Fprintln(os.Stderr, "bring up the loopback interface:", err)
			os.Exit(1)
		}
	case os.Geteuid() == 0:
		cmd := exec.Command(os.Args[0], os.Args[1:]...)
		cmd.Env = append(os.Environ(), insideEnv+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		err := cmd.Run()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			os.Exit(max(exit.ExitCode(), 1))
		}
		if err == nil {
			os.Exit(0)
		}
		// Namespaces may be forbidden here; TestNoNetwork then says so.
		fmt.Fprintln(os.Stderr, "start the tests in a network namespace:", err)
	}
	os.Exit(m.Run())
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// TestNoNetwork proves that the other tests run without a route to the outside.
func TestNoNetwork(t *testing.T) {
	if os.Getenv(insideEnv) == "" {
		oracle.Missing(t, "the tests run in a network namespace of their own only as root")
	}
	interfaces, err := net.Interfaces()
	fatal(t, err)
	for _, i := range interfaces {
		if i.Name != "lo" && i.Flags&net.FlagUp != 0 {
			t.Errorf("interface %s is up", i.Name)
		}
	}
	conn, err := net.Dial("udp", "192.0.2.1:443") // TEST-NET-1; a UDP socket only looks for a route
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("a route leads outside: %v", err)
	}
}
