package cloud

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sniffer sees every packet of the namespace.
type sniffer struct{ fd int }

func newSniffer(t *testing.T) sniffer {
	t.Helper()
	calm(t)
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in the network's byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return sniffer{fd}
}

// calm waits for the end of the connections of earlier tests: a client closes its own by itself, somewhat later, and with packets.
func calm(t *testing.T) {
	t.Helper()
	const listens, over = "0A", "06" // proc_pid_net(5): net/tcp, TCP_LISTEN and TCP_TIME_WAIT
	// The kernel itself ends one that nobody has any more after a minute.
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		table, err := os.ReadFile("/proc/thread-self/net/tcp")
		must(t, err)
		lines := strings.Split(strings.TrimSpace(string(table)), "\n")[1:]
		if !slices.ContainsFunc(lines, func(line string) bool {
			state := strings.Fields(line)[3]
			return state != listens && state != over
		}) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("connections of earlier tests go on:\n%s", table)
		}
	}
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
