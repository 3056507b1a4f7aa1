// Package restart restarts a machine into what is staged for it: all of it, or with systemd its user space
// alone.
//
// It promises that services are stopped in order where a service manager runs, that what was written is on the
// disk where none does, and to say which way it went.
package restart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/systemd"
)

// Kind is how a machine restarts.
type Kind string

// The kinds.
const (
	Full Kind = "full" // firmware, kernel and everything after it
	Soft Kind = "soft" // systemd ends user space and starts that of NextRoot (systemd-soft-reboot.service(8))
)

// NextRoot is where systemd looks for the root of a soft-reboot.
const NextRoot = "/run/nextroot"

// softSince is the version of systemd that brought soft-reboot.target.
const softSince = 254

// Manager is the service manager. A systemd.Manager is one.
type Manager interface {
	Version(ctx context.Context) (int, error)
	Start(ctx context.Context, unit string) error
}

// Machine is what is restarted. The zero value is the one that this process runs on.
type Machine struct {
	Manager  Manager
	NextRoot string
	// Reboot restarts without a service manager.
	Reboot func() error
}

func (m Machine) fill() Machine {
	if m.Manager == nil {
		m.Manager = systemd.Manager{}
	}
	if m.NextRoot == "" {
		m.NextRoot = NextRoot
	}
	if m.Reboot == nil {
		m.Reboot = Hard
	}
	return m
}

// Kind returns the quickest way in which the machine can restart, and where that is Full, why. A soft-reboot
// needs systemd 254; the root for it must be at NextRoot by the time of Now.
func (m Machine) Kind(ctx context.Context) (Kind, string) {
	m = m.fill()
	switch version, err := m.Manager.Version(ctx); {
	case err != nil:
		return Full, err.Error()
	case version < softSince:
		return Full, fmt.Sprintf("a soft-reboot needs systemd %d, and this is %d", softSince, version)
	}
	return Soft, ""
}

// Now restarts the machine the way that kind says, and returns once that is under way: the caller is
// ended like every other process.
func (m Machine) Now(ctx context.Context, kind Kind) error {
	m = m.fill()
	unit := "reboot.target"
	if kind == Soft {
		if err := m.checkNextRoot(); err != nil {
			return err
		}
		unit = "soft-reboot.target"
	}
	err := m.Manager.Start(ctx, unit)
	switch {
	case err == nil:
		return nil
	case kind == Soft:
		return fault.New(fault.Retry, fault.General, "restart the whole machine instead", "soft-reboot: %w", err)
	case errors.Is(err, systemd.ErrNone):
		err = m.Reboot()
	}
	if err != nil {
		return fault.New(fault.Retry, fault.General, "restart it by hand", "restart the machine: %w", err)
	}
	return nil
}

// checkNextRoot refuses a soft-reboot that would start the same root again.
func (m Machine) checkNextRoot() error {
	entries, err := os.ReadDir(m.NextRoot)
	if err == nil && len(entries) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return fault.New(fault.Refuse, fault.General, "restart the whole machine instead", "soft-reboot into %s: %w", m.NextRoot, err)
	}
	return nil
}

// syncPatience is how long a restart waits for a disk that may never answer again.
const syncPatience = 20 * time.Second

// Hard puts what was written on the disk, as far as that answers, and restarts the machine at once, by
// reboot(2). No process gets to know.
func Hard() error {
	done := make(chan struct{})
	go func() { unix.Sync(); close(done) }()
	select {
	case <-done:
	case <-time.After(syncPatience):
	}
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		return fmt.Errorf("reboot(2): %w", err)
	}
	return nil
}
