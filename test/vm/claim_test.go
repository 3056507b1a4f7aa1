package vm

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/test/lab"
)

// codeLine is how the console shows a claim code.
const codeLine = `This machine waits to be claimed\. Its code: ([0-9A-Z]{4}-[0-9A-Z]{4})`

// unnamed makes a node whose machine knows its platform and the CA, and not who it is.
func (p *platform) unnamed(name string) *node {
	p.T.Helper()
	n := p.node(name, "base", "app")
	n.machine.FirmwareConfig = map[string]string{}
	for key, value := range n.identity {
		if strings.HasSuffix(key, "/platform_url") || strings.HasSuffix(key, "/ca_pem") {
			n.machine.FirmwareConfig[key] = value
		}
	}
	return n
}

// asksNothing boots a node that was claimed once: it has no code to show.
func (n *node) asksNothing() {
	n.t.Helper()
	s := n.boot()
	s.runs(1, "1")
	if strings.Contains(s.Console(), "claim") {
		n.t.Errorf("a node that is enrolled speaks of a claim:\n%s", s.Console())
	}
	if f := s.journal(); f.InstanceID != n.token.NodeID {
		n.t.Errorf("it is %s, not %s", f.InstanceID, n.token.NodeID)
	}
	s.PowerOff()
}

// TestClaimInVM: a machine without a token shows a code, the same one after a power cut, and boots as soon as the
// operator has accepted it; also if that was while the machine was off.
// A token that comes otherwise counts too. Later boots ask nothing.
func TestClaimInVM(t *testing.T) {
	whole(t)
	t.Parallel()
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))

	t.Run("accepted while it waits", func(t *testing.T) {
		n := p.unnamed("claimed").on(t)
		s := n.start()
		code := s.WaitLine(codeLine)[1]
		s.WaitLine(`or opens https://.*/claim/` + strings.Replace(code, "-", "", 1))
		if rows := strings.Count(s.Console(), "\x1b[30;47m"); rows < 15 {
			t.Errorf("there is no QR code on the console, but %d rows of one:\n%s", rows, s.Console())
		}
		s.Kill()

		s = n.start()
		if again := s.WaitLine(codeLine)[1]; again != code {
			t.Errorf("after a power cut the code is %s, not %s", again, code)
		}
		p.Operator("claim", "accept", code, "--node", n.name).OK(t)
		s.WaitInit()
		s.good()
		s.runs(1, "1")
		s.PowerOff()
		n.asksNothing()
	})
	t.Run("accepted while it is off", func(t *testing.T) {
		n := p.unnamed("patient").on(t)
		s := n.start()
		code := s.WaitLine(codeLine)[1]
		s.Kill()
		p.Operator("claim", "accept", code, "--node", n.name).OK(t)
		s = n.boot()
		if strings.Contains(s.Console(), "waits to be claimed") {
			t.Errorf("it asks for what it was given:\n%s", s.Console())
		}
		s.Kill() // what it has is on its disk
		n.asksNothing()
	})
	t.Run("a token comes on a stick", func(t *testing.T) {
		n := p.unnamed("plugged").on(t)
		monitor := filepath.Join(lab.TempDir(t), "monitor")
		n.machine.Flags = append([]string{"-monitor", "unix:" + monitor + ",server=on,wait=off", "-device", "virtio-scsi-pci,id=hba"},
			fat(t, "", "cidata", map[string]string{"user-data": "powernode.bootstrap_token=" + n.token.Token + "\n"})...)
		s := n.start()
		s.WaitLine(codeLine)
		conn, err := net.Dial("unix", monitor)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "device_add scsi-hd,bus=hba.0,drive=fat,removable=on\n"); err != nil {
			t.Fatal(err)
		}
		s.WaitLine(`a token was found meanwhile, from nocloud`)
		s.WaitInit()
		s.runs(1, "1")
		s.PowerOff()
		n.machine.Flags = nil
		n.asksNothing()
	})
}
