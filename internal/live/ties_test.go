package live

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTies holds what doesn't cross over, in directories that would be replaced and in others.
func TestTies(t *testing.T) {
	n := newNode(t)
	a := n.files(map[string]string{"usr/f": "a", "opt/f": "a"})
	b := n.files(map[string]string{"usr/f": "b", "opt/f": "a"})
	n.boot(a, nil)
	ties := func(fifos bool, names ...string) string {
		t.Helper()
		found, err := Ties(n.place(), names, fifos)
		must(t, err)
		var got []string
		for _, tie := range found {
			if tie.PID != os.Getpid() || tie.Command == "" {
				t.Errorf("%+v", tie)
			}
			got = append(got, string(tie.Kind)+" "+tie.Path)
		}
		return strings.Join(got, ", ")
	}
	hold := func(dir string) {
		t.Helper()
		for _, name := range []string{"flock", "posix", "ofd", "lease", "unlocked", "gone"} {
			f, err := os.OpenFile(n.in(dir+"/"+name), os.O_CREATE|os.O_RDWR, 0o600)
			must(t, err)
			t.Cleanup(func() { f.Close() })
			lock := &unix.Flock_t{Type: unix.F_WRLCK}
			switch name {
			case "flock", "gone":
				must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
			case "posix":
				must(t, unix.FcntlFlock(f.Fd(), unix.F_SETLK, lock))
			case "ofd":
				must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, lock))
			case "lease":
				_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
				must(t, err)
			}
		}
		must(t, os.Remove(n.in(dir+"/gone")))
		// A name of a socket is short: it is bound by way of the working directory of no one else.
		path := n.in(dir + "/socket")
		if len(path) > 107 {
			t.Skipf("the path of the test's directory is too long for a socket: %s", path)
		}
		l, err := net.Listen("unix", path)
		must(t, err)
		t.Cleanup(func() { l.Close() })
		d, err := net.ListenPacket("unixgram", n.in(dir+"/data  grams"))
		must(t, err)
		t.Cleanup(func() { d.Close() })
		must(t, unix.Mkfifo(n.in(dir+"/fifo"), 0o600))
		f, err := os.OpenFile(n.in(dir+"/fifo"), os.O_RDWR, 0)
		must(t, err)
		t.Cleanup(func() { f.Close() })
	}
	if got := ties(true, "usr", "opt"); got != "" {
		t.Errorf("nobody holds anything, and yet: %s", got)
	}
	hold("opt")
	if got := ties(true, "usr"); got != "" {
		t.Errorf("in another directory: %s", got)
	}
	hold("usr")
	const locks, fifo = "socket /usr/data  grams, fifo /usr/fifo, lock /usr/flock, lock /usr/ofd, lock /usr/posix, socket /usr/socket", "fifo /usr/fifo, "
	if got := ties(true, "usr"); got != locks {
		t.Errorf("got %s, want %s", got, locks)
	}
	if got := ties(false, "usr"); got != strings.Replace(locks, fifo, "", 1) {
		t.Errorf("without FIFOs: %s", got)
	}
	// That is what it is about: none of it is there in the new tree.
	n.swap(a, b)
	f, err := os.Open(n.in("usr/flock"))
	must(t, err)
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("a lock crosses over by now, and needn't be looked for: %v", err)
	}
	if c, err := net.Dial("unix", n.in("usr/socket")); err == nil {
		c.Close()
		t.Error("a socket crosses over by now, and needn't be looked for")
	}
	if w, err := os.OpenFile(n.in("usr/fifo"), os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
		w.Close()
		t.Error("a FIFO crosses over by now, and needn't be looked for")
	}
}

func TestListening(t *testing.T) {
	for line, want := range map[string]string{
		"ffff8: 00000002 00000000 00010000 0001 01 12345 /run/a b":   "/run/a b",
		"ffff8: 00000002 00000000 00000000 0002 01 12345 /dev/log":   "/dev/log",
		"ffff8: 00000002 00000000 00010000 0001 01    12 /a  b   c ": "/a  b   c ",
		"ffff8: 00000003 00000000 00000000 0001 03 12345 /run/a":     "",
		"ffff8: 00000002 00000000 00010000 0001 01 12345 @abc":       "",
		"ffff8: 00000002 00000000 00010000 0001 01 12345":            "",
		"Num       RefCount Protocol Flags    Type St Inode Path":    "",
		"": "",
	} {
		if _, path, ok := listening(line); path != want || ok != (want != "") {
			t.Errorf("%q: %q", line, path)
		}
	}
	if (&tieScan{dirs: []string{filepath.Clean("/usr/")}}).inside("/usrx") {
		t.Error("/usrx isn't in /usr")
	}
}
