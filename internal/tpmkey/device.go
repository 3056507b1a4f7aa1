package tpmkey

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/sys/unix"
)

// The devices of a machine's TPM. The first has the kernel's resource manager, which lets several
// programs use the TPM at once and cleans up after each; the second is one program's at a time.
const (
	managedDevice = "/dev/tpmrm0"
	rawDevice     = "/dev/tpm0"
	// versionFile holds the major version of the specification that the first TPM is of. Linux 5.6.
	versionFile = "/sys/class/tpm/tpm0/tpm_version_major"
)

const (
	// patience is how long one piece of work with the TPM may take, waits included. A discrete TPM
	// makes a key in a second or two; the kernel gives a command up after minutes.
	patience = time.Minute
	// busyPatience is how much of it a TPM may spend saying "later".
	busyPatience = 20 * time.Second

	firstWait = 20 * time.Millisecond
	maxWait   = time.Second
)

// Present reports whether there is a TPM 2.0 at device: a character device, or the UNIX socket of a
// software TPM. "" is the machine's first TPM.
func Present(device string) bool {
	if device != "" {
		return usable(device)
	}
	if usable(managedDevice) {
		return true
	}
	version, err := os.ReadFile(versionFile)
	return usable(rawDevice) && (err != nil || strings.TrimSpace(string(version)) != "1")
}

// resolve returns the path of the TPM that device means.
func resolve(device string) string {
	switch {
	case device != "":
		return device
	case usable(managedDevice):
		return managedDevice
	default:
		return rawDevice
	}
}

func usable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&(fs.ModeCharDevice|fs.ModeSocket) != 0
}

// open opens the TPM. One that is another program's at the moment is waited for.
func open(ctx context.Context, path string) (io.ReadWriteCloser, error) {
	for wait, waited := firstWait, time.Duration(0); ; wait = min(2*wait, maxWait) {
		rw, err := openOnce(ctx, path)
		// EAGAIN is a socket's with as many connections waiting as it takes.
		busy := errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)
		if !busy || waited >= busyPatience {
			return rw, err
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
		waited += wait
	}
}

func openOnce(ctx context.Context, path string) (io.ReadWriteCloser, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode()&fs.ModeSocket != 0 {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err != nil {
			return nil, err
		}
		if deadline, ok := ctx.Deadline(); ok {
			err = conn.SetDeadline(deadline)
		}
		return conn, err
	}
	// Not os.OpenFile, which would make it non-blocking: a read would then return nothing while the TPM
	// works, which looks like the end of a file.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// do opens the TPM at path, works with it, and closes it. turn, a semaphore, keeps others of the same
// key out meanwhile; nil needs none. A TPM that hangs keeps neither the caller (a write to the device
// can't be interrupted) nor, in the end, the turn.
func do[T any](ctx context.Context, path string, turn chan struct{}, work func(transport.TPM) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errPatience)
	done := make(chan result, 1)
	var none T
	if turn != nil {
		select {
		case turn <- struct{}{}:
		case <-ctx.Done():
			cancel()
			return none, context.Cause(ctx)
		}
	}
	go func() {
		defer cancel()
		var r result
		r.value, r.err = session(ctx, path, work)
		if turn != nil {
			<-turn
		}
		done <- r
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		select {
		case r := <-done: // it had ended, and that ended the context
			return r.value, r.err
		default:
			return none, context.Cause(ctx)
		}
	}
}

func session[T any](ctx context.Context, path string, work func(transport.TPM) (T, error)) (T, error) {
	rw, err := open(ctx, path)
	if err != nil {
		var none T
		return none, err
	}
	value, err := work(wire{ctx, rw})
	return value, errors.Join(err, rw.Close())
}
