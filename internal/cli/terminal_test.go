package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a pseudo terminal of that many columns.
func openTerminal(t *testing.T, columns uint16) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY)
	if errno != 0 {
		t.Fatal(errno)
	}
	slave = os.NewFile(peer, "terminal")
	t.Cleanup(func() { slave.Close() })
	if err := unix.IoctlSetWinsize(int(peer), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// onTerminal runs a download with a line in the midst of it, and returns what the terminal got.
func onTerminal(t *testing.T, columns uint16) string {
	t.Helper()
	master, slave := openTerminal(t, columns)
	app := &App{Err: slave, Getenv: func(string) string { return "" }}
	p := app.NewProgress()
	part := p.Start("pull nginx", 1000)
	part.Add(400)
	if _, err := p.Write([]byte("2/6 enroll: done\n")); err != nil {
		t.Fatal(err)
	}
	part.Add(600)
	part.Done(nil)
	p.Start("compose", 0).Done(nil)
	p.Close()
	if _, err := slave.WriteString("result\n"); err != nil {
		t.Fatal(err)
	}
	if err := master.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Logf("no deadline: %v", err)
	}
	var seen bytes.Buffer
	for !strings.Contains(seen.String(), "result") {
		buf := make([]byte, 4096)
		n, err := master.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			t.Fatalf("%v after %q", err, seen.String())
		}
	}
	return seen.String()
}

func TestBarsLeaveLinesAlone(t *testing.T) {
	seen := onTerminal(t, 80)
	for _, want := range []string{"pull nginx", "1000", "2/6 enroll: done\r\n", "compose: ", "result\r\n"} {
		if !strings.Contains(seen, want) {
			t.Errorf("%q lacks %q", seen, want)
		}
	}
	if !strings.Contains(seen, "\x1b[") {
		t.Errorf("no bar was drawn: %q", seen)
	}
	if strings.Contains(seen[strings.Index(seen, "result"):], "pull") {
		t.Errorf("a bar was drawn over the result: %q", seen)
	}
}

func TestATerminalWithoutWidthGetsPlainLines(t *testing.T) {
	if seen := onTerminal(t, 0); strings.Contains(seen, "\x1b") || !strings.Contains(seen, "pull nginx: 1000 B in ") {
		t.Errorf("%q", seen)
	}
}
