package agentcli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/powernode/powernode-agent/internal/health/systemd"
)

// anywhere runs programs by systemd, and as children of this process where there is none: nor is there its sandbox then.
type anywhere struct {
	systemd.Manager
	children *children
}

func newAnywhere() anywhere { return anywhere{children: &children{running: map[string]*os.Process{}}} }

// RunOnce implements programs.
func (a anywhere) RunOnce(ctx context.Context, p systemd.Program, within time.Duration) (int, error) {
	code, err := a.Manager.RunOnce(ctx, p, within)
	if errors.Is(err, systemd.ErrNone) {
		return a.children.RunOnce(ctx, p, within)
	}
	return code, err
}

// Interrupt implements outsidePrograms.
func (a anywhere) Interrupt(ctx context.Context, unit string) error {
	err := a.Manager.Interrupt(ctx, unit)
	if errors.Is(err, systemd.ErrNone) {
		return a.children.interrupt(unit)
	}
	return err
}

// children runs programs as children of this process which outlive it.
type children struct {
	mu      sync.Mutex
	running map[string]*os.Process
}

// RunOnce implements programs. What the program says that isn't its answer is in a file beside that.
func (c *children) RunOnce(ctx context.Context, p systemd.Program, within time.Duration) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	cmd, err := c.start(ctx, p)
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", p.Unit, err)
	}
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		c.mu.Lock()
		delete(c.running, p.Unit)
		c.mu.Unlock()
		ended <- err
	}()
	select {
	case <-ctx.Done():
		return 0, fmt.Errorf("run %s: %w", p.Unit, context.Cause(ctx))
	case err = <-ended:
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	return 0, fmt.Errorf("run %s: %w", p.Unit, err)
}

func (c *children) start(ctx context.Context, p systemd.Program) (*exec.Cmd, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running[p.Unit] != nil {
		return nil, systemd.ErrRuns
	}
	program := p.Args[0]
	if _, err := os.Stat(program); errors.Is(err, fs.ErrNotExist) {
		// On a machine that no agent has booted.
		if program, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	out, err := os.OpenFile(p.Output, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	said, err := os.OpenFile(filepath.Join(filepath.Dir(p.Output), p.Unit+".said"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer said.Close()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, p.Args[1:]...) //nolint:gosec // it is this program, or the one that booted the node
	cmd.Stdout, cmd.Stderr = out, said
	// Whatever ends the service's process group or session leaves it alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c.running[p.Unit] = cmd.Process
	return cmd, nil
}

func (c *children) interrupt(unit string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.running[unit]
	if p == nil {
		return nil
	}
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}
