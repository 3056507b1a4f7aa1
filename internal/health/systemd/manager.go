// Package systemd asks the machine's service manager how it and its units are, and tells it to start, stop and
// reload them, and to restart the machine.
//
// It promises that no question takes longer than its context allows, whatever the other side does, and
// that each connection is its own and is closed. It speaks D-Bus with systemd directly over its private
// socket, so that it works without a bus daemon, and before one runs; only root may use that.
//
// It trusts that who listens at the socket is systemd: its directory belongs to root.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// ErrNone says that the machine doesn't run systemd.
var ErrNone = errors.New("no systemd runs here")

// callTimeout bounds one question and its answer, connecting included.
const callTimeout = 10 * time.Second

// unitsMax is how many units of an answer are looked at.
const unitsMax = 10_000

// Names of org.freedesktop.systemd1(5).
const (
	busName      = "org.freedesktop.systemd1"
	managerPath  = "/org/freedesktop/systemd1"
	managerIface = busName + ".Manager"
)

// Manager is the system's service manager. Run is where /run is; "" is /run.
type Manager struct{ Run string }

func (m Manager) dir() string {
	if m.Run == "" {
		return "/run/systemd"
	}
	return filepath.Join(m.Run, "systemd")
}

// ask connects, has do ask its questions, and closes. Where systemd doesn't run the error wraps ErrNone.
func (m Manager) ask(ctx context.Context, do func(context.Context, dbus.BusObject) error) error {
	return m.connected(ctx, callTimeout, func(ctx context.Context, conn *dbus.Conn) error {
		return do(ctx, conn.Object(busName, managerPath))
	})
}

// connected has do use a connection of its own, for at most the time given, connecting included.
func (m Manager) connected(ctx context.Context, within time.Duration, do func(context.Context, *dbus.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var dialer net.Dialer
	socket, err := dialer.DialContext(ctx, "unix", filepath.Join(m.dir(), "private"))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNone
	}
	if err != nil {
		return fmt.Errorf("reach systemd: %w", err)
	}
	defer socket.Close()
	// The handshake reads without a context; closing the socket ends it.
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	conn, err := dbus.NewConn(socket, dbus.WithContext(ctx), dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if err != nil {
		return fmt.Errorf("reach systemd: %w", err)
	}
	defer conn.Close() //nolint:errcheck // the answers are there, or the error is
	if err := authenticate(ctx, socket, conn); err != nil {
		return fmt.Errorf("reach systemd: %w", because(ctx, err))
	}
	return because(ctx, do(ctx, conn))
}

// authenticate shakes hands, and waits until systemd has read the end of that. A message that it reads together
// with the end lies in its buffer until another one comes (seen with systemd 252): it waits for its socket to
// become readable.
func authenticate(ctx context.Context, socket net.Conn, conn *dbus.Conn) error {
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
		return err
	}
	raw, err := socket.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	for {
		unread, err := 0, error(nil)
		// Of a Unix socket this is what the other side hasn't read (net/unix/af_unix.c, unix_outq_len).
		if ctlErr := raw.Control(func(fd uintptr) { unread, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); ctlErr != nil {
			return ctlErr
		}
		if err != nil || unread == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// because returns the end of the context as the reason where there is one: it shows as a closed socket.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// Unit is a unit that isn't as it should be.
type Unit struct {
	Name string
	// State is "failed", or "auto-restart" for one that ended and is about to be started again.
	State string
	// Restarts is how often systemd started one again by itself since somebody started it; asked for only where State is "auto-restart", 0
	// where systemd doesn't say.
	Restarts uint32
}

// System is how the whole is.
type System struct {
	// State is what `systemctl is-system-running` prints: "starting", "running", "degraded", "maintenance", …
	State string
	// Units are those that failed or are about to be restarted.
	Units []Unit
}

// autoRestart is the state between the end of a service and its next start.
const autoRestart = "auto-restart"

// System asks how the system is.
func (m Manager) System(ctx context.Context) (System, error) {
	var s System
	err := m.connected(ctx, callTimeout, func(ctx context.Context, conn *dbus.Conn) error {
		manager := conn.Object(busName, managerPath)
		var err error
		if s.State, err = property(ctx, manager, "SystemState"); err != nil {
			return err
		}
		var units []listed
		// The second of the two is a moment of the first (systemd 254).
		if err := manager.CallWithContext(ctx, managerIface+".ListUnitsFiltered", 0, []string{"failed", autoRestart, autoRestart + "-queued"}).Store(&units); err != nil {
			return fmt.Errorf("ask systemd for failed units: %w", err)
		}
		for _, u := range units[:min(len(units), unitsMax)] {
			unit := Unit{Name: u.Name, State: u.Active}
			if strings.HasPrefix(u.Sub, autoRestart) {
				unit.State = autoRestart
				// One that went meanwhile says nothing.
				_ = conn.Object(busName, u.Path).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, busName+".Service", "NRestarts").Store(&unit.Restarts)
			}
			s.Units = append(s.Units, unit)
		}
		return nil
	})
	return s, err
}

// Version returns systemd's version number: 254.
func (m Manager) Version(ctx context.Context) (int, error) {
	var n int
	err := m.ask(ctx, func(ctx context.Context, manager dbus.BusObject) error {
		text, err := property(ctx, manager, "Version")
		if err != nil {
			return err
		}
		n, err = parseVersion(text)
		return err
	})
	return n, err
}

// parseVersion reads the number at the start of "254.5-1~deb12" or "v254".
func parseVersion(text string) (int, error) {
	digits := strings.TrimPrefix(text, "v")
	if end := strings.IndexFunc(digits, func(c rune) bool { return c < '0' || c > '9' }); end >= 0 {
		digits = digits[:end]
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("%.40q is no version of systemd", text)
	}
	return n, nil
}

// Start starts a unit in place of everything that is in its way, and doesn't wait for it.
func (m Manager) Start(ctx context.Context, unit string) error {
	return m.ask(ctx, func(ctx context.Context, manager dbus.BusObject) error {
		// The mode by which systemctl reboots: nothing that is asked for later takes it back.
		if err := manager.CallWithContext(ctx, managerIface+".StartUnit", 0, unit, "replace-irreversibly").Err; err != nil {
			return fmt.Errorf("start %s: %w", unit, err)
		}
		return nil
	})
}

func property(ctx context.Context, manager dbus.BusObject, name string) (string, error) {
	var value string
	err := manager.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, managerIface, name).Store(&value)
	if err != nil {
		return "", fmt.Errorf("ask systemd for its %s: %w", name, err)
	}
	return value, nil
}
