package cloud

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// outsideEnv tells the inner process which network namespace it must not be in.
const outsideEnv = "POWERNODE_TEST_OUTSIDE_NETNS"

// TestMain runs all tests of this package in a new network namespace, whose only interface is lo,
// which has the clouds' address. Where such a namespace can't be made, no test runs at all: none
// must ever reach the address on the machine that it runs on.
func TestMain(m *testing.M) {
	outside := os.Getenv(outsideEnv)
	if outside == "" {
		os.Exit(inner())
	}
	if err := prepare(outside); err != nil {
		fmt.Fprintln(os.Stderr, "prepare the tests' own network namespace:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// inner runs the tests in the namespace and returns the exit code.
func inner() int {
	ns, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), outsideEnv+"="+ns)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1)
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "the tests need a network namespace of their own; run them as root:", err)
	if os.Getenv("POWERNODE_REQUIRE_TOOLS") != "" {
		return 1
	}
	return 0
}

// prepare makes sure that this is a namespace of the tests' own, and gives its lo the address.
func prepare(outside string) error {
	ns, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	if ns == outside || len(interfaces) != 1 || interfaces[0].Name != "lo" {
		return fmt.Errorf("%s isn't one: it has %v", ns, interfaces)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	return netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(169, 254, 169, 254), Mask: net.CIDRMask(32, 32)}})
}

// sniffer sees every packet of the namespace.
type sniffer struct{ fd int }

func newSniffer(t *testing.T) sniffer {
	t.Helper()
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in the network's byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return sniffer{fd}
}

// packets returns how many packets were sent since it was asked last.
func (s sniffer) packets(t *testing.T) int {
	t.Helper()
	for n := 0; ; n++ {
		_, _, err := unix.Recvfrom(s.fd, make([]byte, 64), 0)
		if errors.Is(err, unix.EAGAIN) {
			return n
		}
		must(t, err)
	}
}

// listen serves connections at the clouds' address, and returns when the test ends.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp4", netip.AddrPortFrom(netip.MustParseAddr("169.254.169.254"), 80).String())
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
