// Package guard restarts a machine whose new root never came far enough to judge itself: init hangs, the kernel of it
// all lives on, and nobody would ever say "bad".
//
// It is a process of its own, started before the new root's init, from the agent's copy in memory, with nothing
// open on the old or the new root: it works when the disk doesn't. It promises to restart the machine when its
// time is over unless somebody said Good or Stays before, and to do nothing else. The attempt was counted
// before the root was used, so the next boot knows.
package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The words that end a guard, each with the generation's number a file in the directory of the running boot (see File):
// during a soft-reboot the gate of the root that goes must not speak for the one that comes.
const (
	// Good says that the generation was found good.
	Good = "good"
	// Stays says that it wasn't, and that the machine stays up all the same, because there is nothing
	// to go back to.
	Stays = "failed"
)

// Name is the guard's argv[0]. systemd leaves processes with a name that begins with '@' alone when it ends the
// others on the way from an initramfs to the root, or into a soft-reboot (https://systemd.io/ROOT_STORAGE_DAEMONS).
const Name = "@powernode-guard"

// Margin is what a guard gives on top of the time that the health gate has, for a restart that it ordered.
const Margin = time.Minute

// File returns the name of the file that says one of the words above of a generation.
func File(word string, generation uint64) string {
	return word + "-" + strconv.FormatUint(generation, 10)
}

// Say ends the guard of a generation in this boot, with one of the words above; text is for people who look.
func Say(runDir string, generation uint64, word, text string) error {
	return os.WriteFile(filepath.Join(runDir, File(word, generation)), []byte(text+"\n"), 0o644)
}

// Spec says how to start a guard.
type Spec struct {
	// Agent is the path of the agent's binary, which must not lie on the root that is guarded.
	Agent string
	// RunDir is the directory of the running boot, on a file system in memory.
	RunDir string
	// Generation is what the new root is of.
	Generation uint64
	// After is how long the new root has, from now on.
	After time.Duration
}

// Start starts a guard, waits until it watches, and returns its process ID; that is there also with an
// error, where the process was started and nothing was heard of it. What was said of the same generation before, as before a
// soft-reboot, is taken back first. It isn't for a boot in namespaces: the guard restarts the machine.
func Start(s Spec) (int, error) {
	for _, word := range []string{Good, Stays} {
		if err := os.Remove(filepath.Join(s.RunDir, File(word, s.Generation))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("start the guard: %w", err)
		}
	}
	cmd := exec.Command(s.Agent) //nolint:noctx // it outlives who starts it
	cmd.Args = []string{Name, "guard", "--run", s.RunDir, "--generation", strconv.FormatUint(s.Generation, 10), "--after", s.After.String()}
	// A small heap on one thread: this process waits.
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=20", "GOMEMLIMIT=24MiB", "GODEBUG=containermaxprocs=0"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	answer, ready, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("start the guard: %w", err)
	}
	defer answer.Close()
	cmd.ExtraFiles = []*os.File{ready} // readyFD
	err = cmd.Start()
	ready.Close()
	if err != nil {
		return 0, fmt.Errorf("start the guard: %w", err)
	}
	pid := cmd.Process.Pid
	return pid, errors.Join(watching(answer), cmd.Process.Release())
}

// readyFD is the descriptor on which a guard answers its starter, and readyPatience how long that waits.
const (
	readyFD       = 3
	readyPatience = 10 * time.Second
)

// watching waits until the guard has opened all that it needs by path: the caller is about to move /run to
// another root, where the guard can't follow.
func watching(answer *os.File) error {
	if err := answer.SetReadDeadline(time.Now().Add(readyPatience)); err != nil {
		return fmt.Errorf("start the guard: %w", err)
	}
	switch n, err := answer.Read(make([]byte, 1)); {
	case n == 1:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the guard isn't ready after %s", readyPatience)
	default:
		return fmt.Errorf("the guard ended before it was ready: %w", err)
	}
}

// Starter is the pipe on which a process that Start started says that it is ready; nil in any other.
func Starter() *os.File {
	var stat unix.Stat_t
	if err := unix.Fstat(readyFD, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil
	}
	unix.CloseOnExec(readyFD)
	return os.NewFile(readyFD, "starter")
}

// Config is what a guard runs with.
type Config struct {
	RunDir     string
	Generation uint64
	After      time.Duration
	// Every is how often it looks; 0 is 2 seconds.
	Every time.Duration
	// Reboot restarts the machine.
	Reboot func() error
	// Log takes a line before the machine restarts, such as the kernel's log; nil for nobody.
	Log io.Writer
	// Ready is told, and closed, once nothing is looked for by its path any more; nil for nobody.
	Ready io.WriteCloser
}

// Run waits until somebody says a word, and returns nil, or until the time is over, and restarts the
// machine. A RunDir that can't be opened is an error at once.
func Run(ctx context.Context, c Config) error {
	if c.Every == 0 {
		c.Every = 2 * time.Second
	}
	// Held open: after the switch of the root its path leads elsewhere.
	dir, err := os.OpenRoot(c.RunDir)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	defer dir.Close()
	if c.Ready != nil {
		// Nobody may wait any more.
		_, _ = c.Ready.Write([]byte{'\n'})
		_ = c.Ready.Close()
	}
	over := time.NewTimer(c.After)
	defer over.Stop()
	tick := time.NewTicker(c.Every)
	defer tick.Stop()
	for {
		if said(dir, c.Generation) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-over.C:
			if said(dir, c.Generation) {
				return nil
			}
			if c.Log != nil {
				fmt.Fprintf(c.Log, "<2>powernode-agent: nobody found this boot good within %s; restarting the machine\n", c.After)
			}
			return c.Reboot()
		}
	}
}

func said(dir *os.Root, generation uint64) bool {
	for _, word := range []string{Good, Stays} {
		if _, err := dir.Lstat(File(word, generation)); err == nil {
			return true
		}
	}
	return false
}

// LeaveSession moves this process out of the control group of whoever started it, which ends with its session
// or service, into the root of the tree below cgroup (/sys/fs/cgroup).
func LeaveSession(cgroup string) error {
	return os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
}
