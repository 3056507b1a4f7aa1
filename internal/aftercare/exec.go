package aftercare

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// outputMax is how much of what a program says is kept, in bytes: the end of it.
const outputMax = 4096

// afterKill is how long a program that was killed may keep its output open.
const afterKill = 2 * time.Second

// program runs a program of the root, and returns the end of what it said.
func (r *Runner) program(ctx context.Context, p Program) (string, error) {
	limit := orDefault(r.ProgramTime, ProgramTime)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.Path, p.Args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	// A group of its own, so that what it starts ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if r.Root != "" && r.Root != "/" {
		cmd.SysProcAttr.Chroot = r.Root
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = afterKill
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return string(said), fmt.Errorf("it didn't end within %s", limit)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if line := lastLine(string(said)); line != "" {
			return string(said), fmt.Errorf("%s: %s", exit.ProcessState, line)
		}
	}
	return string(said), err
}

// tail keeps the end of what is written to it.
type tail []byte

// Write keeps the end.
func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	if over := len(*t) - outputMax; over > 0 {
		*t = append((*t)[:0], (*t)[over:]...)
	}
	return len(p), nil
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}
