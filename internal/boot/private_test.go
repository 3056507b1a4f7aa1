package boot

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const inPrivate = "POWERNODE_TEST_IN_PRIVATE_NAMESPACES"

// private returns the same test as a program that has mounts and a network of its own, whose /etc is empty.
// It is nil in that program.
func private(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making namespaces needs root")
	}
	if os.Getenv(inPrivate) != "" {
		mounted(t, "tmpfs", "/etc", "tmpfs", 0)
		return nil
	}
	name := "^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$"
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run="+name, "-test.v", "-test.timeout=120s")
	cmd.Env = append(append(os.Environ(), inPrivate+"=1"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	return cmd
}

func mounted(t *testing.T, source, at, kind string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(source, at, kind, flags, ""); err != nil {
		t.Fatalf("mount %s: %v", at, err)
	}
}

// serialLine makes a terminal: the end where a person sits, and the path of the end that is the machine's console.
func serialLine(t *testing.T) (person *os.File, console string) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = person.Close() })
	fd := int(person.Fd())
	if err := unix.SetNonblock(fd, true); err != nil { // Fd has made it a blocking one
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	return person, "/dev/pts/" + strconv.Itoa(n)
}

// operator sits at a console.
type operator struct {
	t      *testing.T
	person *os.File
	seen   consoleBuffer
	grown  chan struct{}
	ended  chan error
}

// reads shows the operator what comes, until the machine has closed its end.
func (o *operator) reads() {
	buf := make([]byte, 4096)
	for {
		n, err := o.person.Read(buf)
		_, _ = o.seen.Write(buf[:n]) // a buffer takes everything
		select {
		case o.grown <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// waits until the console holds the words in this order.
func (o *operator) waits(words ...string) {
	o.t.Helper()
	for deadline := time.After(time.Minute); !o.says(words...); {
		select {
		case <-o.grown:
		case <-deadline:
			o.t.Fatalf("the console doesn't say %q, but:\n%s", words, o.seen.String())
		}
	}
}

func inOrder(text string, words []string) bool {
	for _, word := range words {
		_, rest, found := strings.Cut(text, word)
		if !found {
			return false
		}
		text = rest
	}
	return true
}

func (o *operator) says(words ...string) bool { return inOrder(o.seen.String(), words) }

// ends waits until the machine's process has, and hasn't failed.
func (o *operator) ends() {
	o.t.Helper()
	select {
	case err := <-o.ended:
		if err != nil {
			o.t.Errorf("%v:\n%s", err, o.seen.String())
		}
	case <-time.After(time.Minute):
		o.t.Fatalf("the machine doesn't end:\n%s", o.seen.String())
	}
}

func (o *operator) types(line string) {
	o.t.Helper()
	if _, err := io.WriteString(o.person, line+"\n"); err != nil {
		o.t.Fatal(err)
	}
}

// file writes a file of the test's own and returns its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
