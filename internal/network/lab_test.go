package network

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/oracle"
)

const inLab = "POWERNODE_TEST_IN_NETWORK_NAMESPACE"

// lab is a network of its own: the test's process has a namespace with nothing but lo, and another one
// holds the far ends of its cables, where servers run. Nothing of it reaches the machine's own links.
type lab struct {
	t      *testing.T
	far    int // the far namespace
	resolv string
	mu     sync.Mutex
	lines  []string
	news   chan struct{}
}

// newLab returns nil in the outer process, once the test has run in an inner one of its own.
func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	if os.Getenv(inLab) == "" {
		inner(t)
		return nil
	}
	l := &lab{t: t, resolv: filepath.Join(t.TempDir(), "etc", "resolv.conf"), news: make(chan struct{}, 1)}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			l.far, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// Servers in the far namespace forward, so that Linux lets them advertise routes.
	l.inFar(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0)
	})
	return l
}

// inner runs the same test in a process with a network namespace of its own.
func inner(t *testing.T) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), inLab+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "--- SKIP") {
		t.Skip(string(out))
	}
	if err != nil {
		t.Fatalf("in its own network namespace: %v\n%s", err, out)
	}
	if testing.Verbose() {
		t.Logf("%s", out)
	}
}

// inFar runs f on a thread in the far namespace.
func (l *lab) inFar(f func() error) {
	l.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(l.far, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	if err := <-done; err != nil {
		l.t.Fatalf("in the far namespace: %v", err)
	}
}

// cable makes a link called name, whose far end has the addresses. It has a carrier once plugged.
func (l *lab) cable(name string, addrs ...string) {
	l.t.Helper()
	far := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "far-" + name}
	must(l.t, netlink.LinkAdd(far))
	peer, err := netlink.LinkByName("far-" + name)
	must(l.t, err)
	must(l.t, netlink.LinkSetNsFd(peer, l.far))
	l.inFar(func() error {
		peer, err := netlink.LinkByName("far-" + name)
		if err != nil {
			return err
		}
		// Without duplicate address detection, servers can use their addresses at once.
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/far-"+name+"/accept_dad", []byte("0"), 0); err != nil {
			return err
		}
		for _, a := range addrs {
			if err := netlink.AddrAdd(peer, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(a))}); err != nil {
				return err
			}
		}
		return nil
	})
}

// plug gives the link its carrier, or takes it.
func (l *lab) plug(name string, in bool) {
	l.t.Helper()
	l.inFar(func() error {
		peer, err := netlink.LinkByName("far-" + name)
		if err != nil {
			return err
		}
		if in {
			return netlink.LinkSetUp(peer)
		}
		return netlink.LinkSetDown(peer)
	})
}

// serve runs a server program in the far namespace until the test ends.
func (l *lab) serve(tool string, args ...string) {
	l.t.Helper()
	path := oracle.Path(l.t, tool)
	log, err := os.Create(filepath.Join(l.t.TempDir(), tool+".log"))
	must(l.t, err)
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	l.inFar(cmd.Start)
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if text, _ := os.ReadFile(log.Name()); l.t.Failed() {
			l.t.Logf("%s said:\n%s", tool, text)
		}
		_ = log.Close()
	})
}

// dnsmasq serves DHCP and IPv6 advertisements on the far end of a link.
func (l *lab) dnsmasq(link string, args ...string) {
	l.t.Helper()
	dir := l.t.TempDir()
	l.serve("dnsmasq", append([]string{
		"--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-", "--log-dhcp", "--user=root", "--no-ping",
		"--no-resolv", "--no-hosts", "--port=0", "--dhcp-authoritative", "--leasefile-ro",
		"--pid-file=" + filepath.Join(dir, "pid"), "--interface=far-" + link, "--except-interface=lo", "--bind-interfaces",
	}, args...)...)
}

// start brings the network up and sees to it that nothing is left running.
func (l *lab) start(c Config, o Options) *Network {
	l.t.Helper()
	before := goleak.IgnoreCurrent()
	o.Console, o.ResolvConf = l.hear, l.resolv
	n := Start(l.t.Context(), c, o)
	l.t.Cleanup(func() {
		n.Close()
		goleak.VerifyNone(l.t, before)
		if l.t.Failed() {
			l.t.Logf("the console:\n%s\nthe state:\n%+v", strings.Join(l.lines, "\n"), n.State())
			out, _ := exec.Command("ip", "address").CombinedOutput()
			l.t.Logf("%s", out)
		}
	})
	return n
}

func (l *lab) hear(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// told waits until the console has said a line that contains text.
func (l *lab) told(text string) {
	l.t.Helper()
	for deadline := time.After(60 * time.Second); ; {
		l.mu.Lock()
		all := strings.Join(l.lines, "\n")
		l.mu.Unlock()
		if strings.Contains(all, text) {
			return
		}
		select {
		case <-l.news:
		case <-deadline:
			l.t.Fatalf("the console never said %q, but\n%s", text, all)
		}
	}
}

// until waits until the state is as f wants it.
func (l *lab) until(n *Network, what string, f func(State) bool) State {
	l.t.Helper()
	s, _ := l.judged(n, what, func(s State, _ error) bool { return f(s) })
	return s
}

// fails waits until the network is given up with all of these words: on a slow machine more may be known of it by the deadline, or after it.
func (l *lab) fails(n *Network, words ...string) error {
	l.t.Helper()
	_, err := l.judged(n, fmt.Sprintf("given up with %q", words), func(_ State, err error) bool {
		return err != nil && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(err.Error(), w) })
	})
	return err
}

func (l *lab) judged(n *Network, what string, f func(State, error) bool) (State, error) {
	l.t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		n.mu.Lock()
		s, err, changed := n.state, n.verdict.err, n.changed
		n.mu.Unlock()
		if f(s, err) {
			return s, err
		}
		select {
		case <-changed:
		case <-deadline:
			l.t.Fatalf("never %s: %+v, %v", what, s, err)
		}
	}
}

func (l *lab) resolvText() string {
	l.t.Helper()
	text, err := os.ReadFile(l.resolv)
	must(l.t, err)
	return string(text)
}

// routes returns the routes of the test's namespace as "to via gateway dev n", without the kernel's own.
func (l *lab) routes(name string) string {
	l.t.Helper()
	link, err := netlink.LinkByName(name)
	must(l.t, err)
	routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
	must(l.t, err)
	var out []string
	for _, r := range routes {
		if r.Protocol == unix.RTPROT_KERNEL {
			continue
		}
		gw := "link"
		if r.Gw != nil {
			gw = r.Gw.String()
		}
		out = append(out, fmt.Sprintf("%s via %s", r.Dst, gw))
	}
	return strings.Join(out, "; ")
}

// addressOf returns the address of a link that has the source.
func addressOf(s State, name string, source Source) (netip.Prefix, bool) {
	for _, l := range s.Links {
		for _, a := range l.Addresses {
			if l.Name == name && a.Source == source {
				return a.Prefix, true
			}
		}
	}
	return netip.Prefix{}, false
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
