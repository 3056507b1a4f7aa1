package tpmkey

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"
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

	// maxAnswer is the largest answer that is read: TPM_BUFSIZE of Linux's driver.
	maxAnswer  = 4096
	headerSize = 10 // tag, size and response code; TPM 2.0 Library, part 1, 18.8
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
	info, err := os.Stat(path)
	if err == nil && info.Mode()&fs.ModeSocket != 0 {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err != nil {
			return nil, err
		}
		if deadline, ok := ctx.Deadline(); ok {
			err = conn.SetDeadline(deadline)
		}
		return conn, err
	}
	for wait, waited := firstWait, time.Duration(0); ; wait = min(2*wait, maxWait) {
		// Not os.OpenFile, which would make it non-blocking: a read would then return nothing while
		// the TPM works, which looks like the end of a file.
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EBUSY) || waited >= busyPatience:
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		default:
			if err := sleep(ctx, wait); err != nil {
				return nil, err
			}
			waited += wait
		}
	}
}

// wire sends commands to an open TPM, and sends those again that it puts off.
type wire struct {
	ctx context.Context
	rw  io.ReadWriter
}

// Send implements transport.TPM.
func (w wire) Send(command []byte) ([]byte, error) {
	for wait, waited := firstWait, time.Duration(0); ; wait = min(2*wait, maxWait) {
		answer, err := w.exchange(command)
		if err != nil || !later(answer) || waited >= busyPatience {
			return answer, err
		}
		if err := sleep(w.ctx, wait); err != nil {
			return nil, err
		}
		waited += wait
	}
}

// exchange sends one command and reads its whole answer. A device gives it at once, a socket perhaps
// in parts.
func (w wire) exchange(command []byte) ([]byte, error) {
	if _, err := w.rw.Write(command); err != nil {
		return nil, err
	}
	answer := make([]byte, maxAnswer)
	n, err := io.ReadAtLeast(w.rw, answer, headerSize)
	if err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(answer[2:6])
	if size < headerSize || size > maxAnswer || uint32(n) > size {
		return nil, fmt.Errorf("it says that its answer has %d bytes: want %d to %d", size, headerSize, maxAnswer)
	}
	if uint32(n) < size {
		if _, err := io.ReadFull(w.rw, answer[n:size]); err != nil {
			return nil, err
		}
	}
	return answer[:size], nil
}

// later reports whether the TPM asks for the same command again: it is testing itself, saves its
// memory from wear, or has its memory full of what other programs will unload (TPM 2.0 Library, part
// 2, 6.6.3).
func later(answer []byte) bool {
	switch tpm2.TPMRC(binary.BigEndian.Uint32(answer[6:headerSize])) {
	case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate,
		tpm2.TPMRCObjectMemory, tpm2.TPMRCSessionMemory, tpm2.TPMRCMemory:
		return true
	default:
		return false
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
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
