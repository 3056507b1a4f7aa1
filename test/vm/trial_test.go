package vm

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/test/lab"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// Inits that aren't good, in machine code of amd64.
var (
	// dies calls exit(1), of which the kernel panics.
	dies = machineCode([]byte{0xb8, 60, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0x0f, 0x05})
	// hangs calls pause() for ever.
	hangs = machineCode([]byte{0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7})
)

// machineCode makes an executable file of machine code.
func machineCode(code []byte) []byte {
	const at, headers = 0x400000, 64 + 56
	var b bytes.Buffer
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Entry: at + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	size := uint64(headers + len(code))
	p := elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: at, Paddr: at, Filesz: size, Memsz: size, Align: 4096}
	for _, part := range []any{h, p, code} {
		_ = binary.Write(&b, binary.LittleEndian, part) // to memory, of fixed sizes
	}
	return b.Bytes()
}

// detail is what the operator sees of the node.
func (n *node) detail() operatorapi.NodeDetail {
	n.t.Helper()
	var d operatorapi.NodeDetail
	n.p.Operator("node", "show", n.name, "--output", "json").Into(n.t, &d)
	return d
}

// TestBadGenerations: a staged generation whose init dies, one whose init hangs and one that loses the
// platform are rolled back by the machine itself, and aren't tried again.
func TestBadGenerations(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("bad", "base", "app")
	n.machine.Append = "powernode.tries=1 powernode.health_timeout=40s"
	s := n.boot()
	s.good()

	// rolledBack checks that the good generation runs again, and that the node says why.
	rolledBack := func(t *testing.T, generation uint64, why string) {
		t.Helper()
		s.WaitInit()
		s := &system{s.On(t), n.on(t)}
		doc := s.runs(1, "1")
		if doc.InStep || !strings.Contains(strings.Join(doc.Reasons, "\n"), why) {
			t.Errorf("status: in step %t, reasons %q, want %q", doc.InStep, doc.Reasons, why)
		}
		if doc.LastFailed.Generation != generation {
			t.Errorf("the last that failed is %d, not %d", doc.LastFailed.Generation, generation)
		}
	}
	t.Run("init dies", func(t *testing.T) {
		p.Publish(lab.Base("2", dies))
		s.Reboot()
		s.WaitLine(`mount: generation 2, .*attempt 1 of 1`)
		rolledBack(t, 2, "generation 2")
		if !strings.Contains(s.Console(), "Attempted to kill init") {
			t.Error("the init of generation 2 didn't die")
		}
	})
	t.Run("init hangs", func(t *testing.T) {
		p.Publish(lab.Base("3", hangs))
		s.Reboot()
		s.WaitLine(`mount: generation 3, .*attempt 1 of 1`)
		rolledBack(t, 3, "generation 3")
	})
	t.Run("the platform is lost", func(t *testing.T) {
		p.Publish(base(t, "4"))
		s.Reboot()
		s.WaitLine(`mount: generation 4, .*attempt 1 of 1`)
		s.WaitInit()
		p.Stop()
		if a := s.Do(qemu.Request{Op: "start", Args: []string{"service", boot.AgentPath, "service", "--reconcile=off"}}); a.Error != "" {
			t.Fatal(a.Error)
		}
		s.WaitInit()
		p.Start()
		s := &system{s.On(t), n.on(t)}
		if doc := s.runs(1, "1"); doc.LastFailed.Generation != 4 || !strings.Contains(doc.LastFailed.Reason, "platform") {
			t.Errorf("the last that failed: %+v", doc.LastFailed)
		}
	})
	t.Run("the operator sees it", func(t *testing.T) {
		s, n := &system{s.On(t), n.on(t)}, n.on(t)
		s.service("the platform knows of the rollback", func() bool {
			for _, b := range n.detail().Boots {
				if b.Fallback != nil && b.Fallback.Generation == 4 {
					return true
				}
			}
			return false
		})
	})
	t.Run("one that is good", func(t *testing.T) {
		p.Publish(base(t, "5"))
		s.Reboot()
		s.WaitInit()
		s := &system{s.On(t), n.on(t)}
		s.good()
		if doc := s.runs(5, "1"); !doc.InStep {
			t.Errorf("out of step: %q", doc.Reasons)
		}
	})
	s.PowerOff()
	qemu.Check(t, n.disk)
}

// TestNoInit: modules without an init leave a new machine in the recovery environment, from which a new
// assignment gets it without anybody touching it; and a machine that runs stays with what ran.
func TestNoInit(t *testing.T) {
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("initless", "app")
	s := n.start()
	s.WaitLine(`This machine can't boot: .*/sbin/init`)
	s.WaitLine(`What to do: .*init`)
	s.WaitLine(n.token.NodeID + `.*` + n.token.PlatformURL)
	p.assign("initless", "base", "app")
	s.WaitLine(`the platform assigns something else now`)
	s.WaitInit()
	doc := s.runs(2, "1")
	s.good()

	p.Operator("unassign", "initless", "base").OK(t)
	s.Reboot()
	s.WaitInit()
	s.says("/sbin/init", "staying with generation 2")
	again := s.runs(2, "1")
	if again.RootDigest != doc.RootDigest || !strings.Contains(strings.Join(again.Reasons, "\n"), "/sbin/init") {
		t.Errorf("root %s, reasons %q", again.RootDigest, again.Reasons)
	}
	s.PowerOff()
}

// TestUntrustedModule: a module that nobody trusted has signed, or nobody at all, keeps the node at what
// it runs, and node and platform say why.
func TestUntrustedModule(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("untrusted", "base", "app")
	s := n.boot()
	s.good()
	for _, c := range []struct {
		version, why string
		publish      func()
	}{
		{"2", "key", func() { p.Operator("module", "publish", "--key", lab.ForeignKey(t)+".key", app("2").Layout(t)).OK(t) }},
		{"3", "not signed", func() { p.unsign(p.Publish(app("3"))) }},
	} {
		c.publish()
		version, why := c.version, c.why
		s.Reboot()
		s.WaitInit()
		s.says("app "+version, why, "staying with generation 1")
		doc := s.runs(1, "1")
		if reasons := strings.Join(doc.Reasons, "\n"); doc.InStep || !strings.Contains(reasons, "app "+version) || !strings.Contains(reasons, why) {
			t.Errorf("status: in step %t, reasons %q", doc.InStep, doc.Reasons)
		}
		s.service("the platform knows why", func() bool {
			for _, b := range n.detail().Boots {
				if remarks := strings.Join(b.Remarks, "\n"); strings.Contains(remarks, "app "+version) && strings.Contains(remarks, why) {
					return true
				}
			}
			return false
		})
	}
	p.Publish(app("4"))
	s.Reboot()
	s.WaitInit()
	s.good()
	if doc := s.runs(2, "4"); !doc.InStep {
		t.Errorf("out of step: %q", doc.Reasons)
	}
	s.PowerOff()
}

// TestBreak: whoever writes the kernel command line gets a shell only where the trust policy says so.
func TestBreak(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("break", "base", "app")
	n.machine.Append = "powernode.break=fetch"
	s := n.boot()
	s.says("powernode.break", "recovery_shell")
	s.good()
	s.runs(1, "1")
	s.PowerOff()

	n.machine.Initramfs = agentInitramfs(t, p, "integrity: enforced\nrecovery_shell: true\n", "")
	s = n.start()
	s.WaitLine(`stopped before stage fetch`)
	s.Type("node\n")
	s.WaitLine(`node ` + n.token.NodeID + ` of `)
	s.Type("shell\n")
	s.WaitLine(`shell: there is none in this initramfs`)
	s.Type("continue\n")
	s.WaitInit()
	s.runs(1, "1")
	s.PowerOff()
}
