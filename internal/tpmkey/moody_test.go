package tpmkey

import (
	"crypto"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/tpmkey/tpmtest"
)

// moody is a TPM between a caller and a real one. It answers in parts, and at first as it is told.
type moody struct {
	t        *testing.T
	real     string
	listener net.Listener
	// answers are given in turn, each instead of one that the real one would give; nil passes the
	// command on.
	answers chan []byte
}

func newMoody(t *testing.T, real string, answers ...[]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	m := &moody{t: t, real: real, listener: listener, answers: make(chan []byte, len(answers))}
	for _, a := range answers {
		m.answers <- a
	}
	go m.serve()
	return path
}

func (m *moody) serve() {
	for {
		conn, err := m.listener.Accept()
		if err != nil {
			return
		}
		if err := m.talk(conn); err != nil && !errors.Is(err, io.EOF) {
			m.t.Error(err)
		}
		_ = conn.Close()
	}
}

func (m *moody) talk(conn net.Conn) error {
	tpm, err := open(m.t.Context(), m.real)
	if err != nil {
		return err
	}
	defer tpm.Close()
	for {
		command, err := message(conn)
		if err != nil {
			return err
		}
		var answer []byte
		select {
		case answer = <-m.answers:
		default:
		}
		if answer == nil {
			if _, err := tpm.Write(command); err != nil {
				return err
			}
			if answer, err = message(tpm); err != nil {
				return err
			}
		}
		for len(answer) > 0 {
			n := min(len(answer), 7)
			if _, err := conn.Write(answer[:n]); err != nil {
				return err
			}
			answer = answer[n:]
		}
	}
}

func message(r io.Reader) ([]byte, error) {
	head := make([]byte, headerSize)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	rest := make([]byte, binary.BigEndian.Uint32(head[2:])-headerSize)
	_, err := io.ReadFull(r, rest)
	return append(head, rest...), err
}

// says is an answer that holds nothing but its code.
func says(code tpm2.TPMRC) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMSTNoSessions))
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, headerSize), uint32(code))
}

func TestATPMThatSaysLater(t *testing.T) {
	real := tpmtest.New(t)
	free := real.Free()
	path := newMoody(t, real.Device,
		says(tpm2.TPMRCTesting), says(tpm2.TPMRCRetry), nil, says(tpm2.TPMRCYielded), nil, nil, says(tpm2.TPMRCObjectMemory), nil, says(tpm2.TPMRCNVRate))
	signs(t, newTestKey(t, path), "with patience")
	if now := real.Free(); now != free {
		t.Errorf("room for %d objects, before it was %d", now, free)
	}
}

func TestWhatATPMMayAnswer(t *testing.T) {
	real := tpmtest.New(t)
	k := newTestKey(t, real.Device)
	const parameter2 = 0x040 + 0x200 // TPM_RC_P + TPM_RC_2: which parameter is meant
	for name, c := range map[string]struct {
		answers [][]byte // to CreatePrimary and Load
		kind    fault.Kind
		cause   error
		words   string
	}{
		"switched off":           {[][]byte{says(tpm2.TPMRCHierarchy)}, fault.Refuse, tpm2.TPMRCHierarchy, "firmware's settings"},
		"not started":            {[][]byte{says(tpm2.TPMRCInitialize)}, fault.Refuse, tpm2.TPMRCInitialize, "off and on"},
		"failed":                 {[][]byte{says(tpm2.TPMRCFailure)}, fault.Refuse, tpm2.TPMRCFailure, "off and on"},
		"locked":                 {[][]byte{nil, says(tpm2.TPMRCLockout)}, fault.Retry, tpm2.TPMRCLockout, "lockout is over"},
		"interrupted":            {[][]byte{nil, says(tpm2.TPMRCCanceled)}, fault.Retry, tpm2.TPMRCCanceled, "fuser"},
		"no such curve":          {[][]byte{says(tpm2.TPMRCCurve | parameter2)}, fault.Refuse, tpm2.TPMRCCurve, "P-256"},
		"a TPM 1.2":              {[][]byte{says(badTag)}, fault.Refuse, nil, "node_key: file"},
		"a foreign key":          {[][]byte{nil, says(tpm2.TPMRCIntegrity | 0x040 + 0x100)}, fault.Refuse, ErrForeign, "new token"},
		"not a foreign parent":   {[][]byte{says(tpm2.TPMRCIntegrity)}, fault.Retry, tpm2.TPMRCIntegrity, ""},
		"an answer without size": {[][]byte{make([]byte, headerSize)}, fault.Retry, nil, "its answer has 0 bytes"},
		"an answer without end":  {[][]byte{{0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}}, fault.Retry, nil, "its answer has 4294967295 bytes"},
		"an empty answer":        {[][]byte{says(tpm2.TPMRCSuccess)}, fault.Retry, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tired, err := Load(newMoody(t, real.Device, c.answers...), k.PEM())
			if err != nil {
				t.Fatal(err)
			}
			err = tired.Check(t.Context())
			refused(t, err, c.kind, c.cause, c.words)
			if c.cause != nil && !errors.Is(c.cause, ErrForeign) && errors.Is(err, ErrForeign) {
				t.Error("the key is given up for a fault of the TPM")
			}
		})
	}
}

// TestASignatureThatIsNone: a TPM, or who sits on the wires to it, that signs something else.
func TestASignatureThatIsNone(t *testing.T) {
	real := tpmtest.New(t)
	k := newTestKey(t, real.Device)
	answer := []byte{0x80, 2, 0, 0, 0, 91, 0, 0, 0, 0, 0, 0, 0, 72, 0, 0x18, 0, 0x0b}
	for range 2 {
		answer = append(append(answer, 0, 32), make([]byte, 32)...)
		answer[len(answer)-1] = 5
	}
	answer = append(answer, 0, 0, 1, 0, 0) // the session's
	bad, err := Load(newMoody(t, real.Device, nil, nil, answer), k.PEM())
	if err != nil {
		t.Fatal(err)
	}
	_, err = bad.Sign(rand.Reader, make([]byte, 32), crypto.SHA256)
	refused(t, err, fault.Retry, nil, "isn't one")
}
