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
)

// The words that end a guard, each a file in the directory of the running boot.
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

// Say ends the guard of this boot, with one of the words above; text is for people who look.
func Say(runDir, word, text string) error {
	return os.WriteFile(filepath.Join(runDir, word), []byte(text+"\n"), 0o644)
}

// Spec says how to start a guard.
type Spec struct {
	// Agent is the path of the agent's binary, which must not lie on the root that is guarded.
	Agent string
	// RunDir is the directory of the running boot, on a file system in memory.
	RunDir string
	// After is how long the new root has, from now on.
	After time.Duration
}

// Start starts a guard and returns its process ID. What an earlier boot said, before a soft-reboot, is taken
// back first. It isn't for a boot in namespaces: the guard restarts the machine.
func Start(s Spec) (int, error) {
	for _, word := range []string{Good, Stays} {
		if err := os.Remove(filepath.Join(s.RunDir, word)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("start the guard: %w", err)
		}
	}
	cmd := exec.Command(s.Agent)
	cmd.Args = []string{Name, "guard", "--run", s.RunDir, "--after", s.After.String()}
	// A small heap on one thread: this process waits.
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=20", "GOMEMLIMIT=24MiB", "GODEBUG=containermaxprocs=0"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the guard: %w", err)
	}
	pid := cmd.Process.Pid
	return pid, cmd.Process.Release()
}

// Config is what a guard runs with.
type Config struct {
	RunDir string
	After  time.Duration
	// Every is how often it looks; 0 is 2 seconds.
	Every time.Duration
	// Reboot restarts the machine.
	Reboot func() error
	// Log takes a line before the machine restarts, such as the kernel's log; nil for nobody.
	Log io.Writer
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
	over := time.NewTimer(c.After)
	defer over.Stop()
	tick := time.NewTicker(c.Every)
	defer tick.Stop()
	for {
		if said(dir) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-over.C:
			if said(dir) {
				return nil
			}
			if c.Log != nil {
				fmt.Fprintf(c.Log, "<2>powernode-agent: nobody found this boot good within %s; restarting the machine\n", c.After)
			}
			return c.Reboot()
		}
	}
}

func said(dir *os.Root) bool {
	for _, word := range []string{Good, Stays} {
		if _, err := dir.Lstat(word); err == nil {
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
