package runtime

import (
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Systemd returns the Notifier for the service manager that started this process, and the time
// within which its watchdog wants a sign of life. Where there is none, the Notifier does
// nothing and the time is 0.
func Systemd() (Notifier, time.Duration, error) {
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return nil, 0, fmt.Errorf("read what systemd's watchdog wants: %w", err)
	}
	return systemd{}, watchdog, nil
}

type systemd struct{}

// Notify sends the message to $NOTIFY_SOCKET, if there is one.
func (systemd) Notify(message string) error {
	_, err := daemon.SdNotify(false, message)
	return err
}

// monotonic is the time by CLOCK_MONOTONIC, as systemd wants to be told of a reload (sd_notify(3)).
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
