// Package tpmtest gives tests a TPM 2.0 in software: swtpm, the one that virtual machines have.
//
// It promises nothing to production code, which must not import it.
package tpmtest

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"github.com/powernode/powernode-agent/internal/oracle"
)

// patience is how long a TPM may take to listen.
const patience = time.Minute

// TPM is a TPM of its own, empty at first, which ends with the test.
type TPM struct {
	// Device is what package tpmkey takes: a socket, and no resource manager behind it.
	Device string

	t   testing.TB
	dir string
	cmd *exec.Cmd
}

// New switches a new TPM on. The test ends, as oracle.Missing has it, where there is no swtpm.
func New(t testing.TB) *TPM {
	t.Helper()
	if _, err := exec.LookPath("swtpm"); err != nil {
		oracle.Missing(t, "the program swtpm isn't installed; run scripts/setup")
	}
	// Not the test's own directory: the path of a socket is at most 107 bytes long.
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		t.Fatal(err)
	}
	s := &TPM{Device: filepath.Join(dir, "socket"), t: t, dir: dir}
	t.Cleanup(func() {
		s.off()
		_ = os.RemoveAll(dir)
	})
	s.on()
	return s
}

// PowerCycle switches it off and on: what is loaded is gone, what is stored stays.
func (s *TPM) PowerCycle() {
	s.t.Helper()
	s.off()
	s.on()
}

// Off switches it off for good.
func (s *TPM) Off() {
	s.t.Helper()
	s.off()
	if err := os.Remove(s.Device); err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
}

// Clear clears it as a firmware's setup does: everything that was made in it is worthless.
func (s *TPM) Clear() {
	s.t.Helper()
	s.Do(func(t transport.TPM) error {
		_, err := tpm2.Clear{AuthHandle: tpm2.TPMRHPlatform}.Execute(t)
		return err
	})
}

// Free returns how many more objects could be loaded.
func (s *TPM) Free() uint32 {
	s.t.Helper()
	var free uint32
	s.Do(func(t transport.TPM) error {
		got, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTHRTransientAvail), PropertyCount: 1}.Execute(t)
		if err != nil {
			return err
		}
		properties, err := got.CapabilityData.Data.TPMProperties()
		if err == nil {
			free = properties.TPMProperty[0].Value
		}
		return err
	})
	return free
}

// Do sends it commands, and fails the test on an error.
func (s *TPM) Do(work func(transport.TPM) error) {
	s.t.Helper()
	t, err := linuxudstpm.Open(s.Device)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := work(patient{t}); err != nil {
		s.t.Fatal(err)
	}
	if err := t.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// patient waits for its turn: swtpm lets hardly anybody queue, and each command is a connection.
type patient struct{ transport.TPM }

// Send implements transport.TPM.
func (p patient) Send(command []byte) ([]byte, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		answer, err := p.TPM.Send(command)
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(deadline) {
			return answer, err
		}
	}
}

func (s *TPM) on() {
	s.t.Helper()
	s.cmd = exec.CommandContext(context.Background(), "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+s.dir,
		"--server", "type=unixio,path="+s.Device, "--ctrl", "type=unixio,path="+s.Device+".ctrl", "--flags", "not-need-init,startup-clear")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		conn, err := (&net.Dialer{}).DialContext(context.Background(), "unix", s.Device)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("swtpm doesn't listen: %v", err)
		}
	}
}

func (s *TPM) off() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}
