package tpmkey

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/google/go-tpm/tpm2"
)

const (
	// maxAnswer is the largest answer that is read: TPM_BUFSIZE of Linux's driver.
	maxAnswer  = 4096
	headerSize = 10 // tag, size and response code; TPM 2.0 Library, part 1, 18.8
)

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
