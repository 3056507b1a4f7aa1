// Package alone keeps tests that may ask a machine who it is away from the machine that they run on, which may itself
// be a cloud's: its metadata service would answer them.
//
// It is for tests only. It promises that a test binary whose TestMain calls Main, and every program that it starts, is
// in a network namespace that leads nowhere, or else on a machine that isn't in a cloud by the sources' own rule, so
// that no packet goes to 169.254.169.254 outside. It trusts that rule only where such a namespace can't be made.
package alone

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/identity/cloud"
	"github.com/powernode/powernode-agent/internal/oracle"
)

// outsideEnv tells the inner process which network namespace it must not be in.
const outsideEnv = "POWERNODE_TEST_OUTSIDE_NETNS"

// why is what is said where tests don't run.
const why = "the tests need a network namespace of their own, so that they don't ask this machine's cloud; run them as root"

// metadata is where all clouds' services are.
var metadata = netip.MustParseAddr("169.254.169.254")

// Main is for TestMain: it calls run, m.Run or what calls it, and returns the exit code. That is done in a new process
// whose network has lo, and a card whose cable ends at another. Where there is no right to make one, run is called
// here, unless this machine is in a cloud: then the test that calls Check runs alone, to say so.
func Main(run func() int) int {
	return inside(run, func() error { return prepare(false) }, func() bool { return !inCloud() })
}

// MainAsCloud is Main for tests that are the metadata service: lo has its address. Without a namespace none of them runs.
func MainAsCloud(run func() int) int {
	return inside(run, func() error { return prepare(true) }, func() bool { return false })
}

// Check is the one test that runs where no other may, and is skipped there. Elsewhere it makes sure that what Main promises is so.
// The test has to be named TestAlone.
func Check(t *testing.T) {
	t.Helper()
	if os.Getenv(outsideEnv) == "" {
		oracle.Missing(t, why)
	}
	if err := leadsNowhere(); err != nil {
		t.Fatal(err)
	}
}

func inside(run func() int, prepare func() error, harmless func() bool) int {
	if os.Getenv(outsideEnv) != "" {
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare the tests' own network namespace:", err)
			return 1
		}
		return run()
	}
	ns, err := namespace()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	runtime.LockOSThread() // Pdeathsig is about the thread that starts the child
	child := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	child.Env = append(os.Environ(), outsideEnv+"="+ns)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err = child.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1)
	}
	switch {
	case err == nil:
		return 0
	case !errors.Is(err, unix.EPERM):
		fmt.Fprintln(os.Stderr, "run the tests in their own network namespace:", err)
		return 1
	case harmless():
		return run()
	}
	return sayWhy(run)
}

// sayWhy has run run TestAlone, and nothing else.
func sayWhy(run func() int) int {
	flag.Parse()
	for name, value := range map[string]string{"test.run": "^TestAlone$", "test.bench": "", "test.fuzz": ""} {
		if err := flag.Set(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return run()
}

// inCloud reports whether a source would ask this machine's cloud without being told to.
func inCloud() bool {
	return slices.ContainsFunc(cloud.Sources(cloud.Options{}), func(s cloud.Source) bool {
		here, _ := s.Here()
		return here
	})
}

func namespace() (string, error) { return os.Readlink("/proc/self/ns/net") }

// leadsNowhere makes sure that this is a namespace of the tests' own, from which the address isn't reached.
func leadsNowhere() error {
	ns, err := namespace()
	if err != nil {
		return err
	}
	if ns == os.Getenv(outsideEnv) {
		return fmt.Errorf("%s is the machine's own", ns)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	routes, err := netlink.RouteGet(metadata.AsSlice())
	if err != nil && !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH) {
		return err
	}
	for _, r := range routes {
		if r.LinkIndex != lo.Attrs().Index {
			return fmt.Errorf("%s has a route to %s", ns, metadata)
		}
	}
	return nil
}

// prepare sets the namespace up. A child of a test, as a fuzzing worker, finds it done.
func prepare(asCloud bool) error {
	if err := leadsNowhere(); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	if asCloud {
		return netlink.AddrReplace(lo, &netlink.Addr{IPNet: &net.IPNet{IP: metadata.AsSlice(), Mask: net.CIDRMask(32, 32)}})
	}
	// A machine is claimed by its card's address. A kernel without such cards has tests skipped, no more.
	err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "card"}, PeerName: "cable"})
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}
