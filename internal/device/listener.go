package device

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// kernelGroup is the multicast group of the kernel's own events; group 2 is udev's.
const kernelGroup = 1

// receiveBuffer is what may wait to be read: a coldplug of a large machine is thousands of events.
const receiveBuffer = 4 << 20

// ErrLost says that events were lost because they came faster than they were read. Whoever listens
// looks at everything again.
var ErrLost = errors.New("events of the kernel were lost")

// Listener receives the kernel's events about devices, from the moment on that it was made.
type Listener struct{ f *os.File }

// Listen starts to listen. The kernel sends events to the network namespaces of the machine's first
// user namespace only.
func Listen() (*Listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("listen to the kernel's events about devices: %w", err)
	}
	// Needs CAP_NET_ADMIN; with less buffer, a burst is lost and said to be (ErrLost).
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("listen to the kernel's events about devices: %w", err)
	}
	return &Listener{f: os.NewFile(uintptr(fd), "uevents")}, nil
}

// Close stops listening; a Next that waits returns.
func (l *Listener) Close() error { return l.f.Close() }

// Next returns the next event, ErrLost where some before it are missing, or the cause of ctx's end.
// One caller at a time.
func (l *Listener) Next(ctx context.Context) (Event, error) {
	stop := context.AfterFunc(ctx, func() { _ = l.f.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() {
			_ = l.f.SetReadDeadline(time.Time{})
		}
	}()
	conn, err := l.f.SyscallConn()
	if err != nil {
		return Event{}, fmt.Errorf("wait for an event about a device: %w", err)
	}
	buf := make([]byte, eventMax+1)
	for {
		if ctx.Err() != nil {
			return Event{}, context.Cause(ctx)
		}
		var n int
		var from unix.Sockaddr
		var errno error
		err := conn.Read(func(fd uintptr) bool {
			n, from, errno = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(errno, syscall.EAGAIN)
		})
		switch {
		case ctx.Err() != nil:
			return Event{}, context.Cause(ctx)
		case errors.Is(err, os.ErrDeadlineExceeded): // left over from an earlier call's context
			_ = l.f.SetReadDeadline(time.Time{})
			continue
		case err != nil:
			return Event{}, fmt.Errorf("wait for an event about a device: %w", err)
		case errors.Is(errno, unix.EINTR):
			continue
		case errors.Is(errno, unix.ENOBUFS):
			return Event{}, ErrLost
		case errno != nil:
			return Event{}, fmt.Errorf("wait for an event about a device: %w", errno)
		}
		// Port 0 is the kernel: a process with CAP_NET_ADMIN may send to the group, too.
		if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
			continue
		}
		if e, err := parseEvent(buf[:n]); err == nil {
			return e, nil
		}
	}
}

// Modaliases returns the modaliases of the devices that appear from now on, for the loading of their
// drivers. It is closed when ctx ends or the listener is closed; nobody else calls Next meanwhile.
func (l *Listener) Modaliases(ctx context.Context) <-chan string {
	appeared := make(chan string)
	go func() {
		defer close(appeared)
		for {
			e, err := l.Next(ctx)
			if err != nil && !errors.Is(err, ErrLost) {
				return
			}
			if err != nil || e.Action != "add" || e.Env["MODALIAS"] == "" {
				continue
			}
			select {
			case appeared <- e.Env["MODALIAS"]:
			case <-ctx.Done():
				return
			}
		}
	}()
	return appeared
}
