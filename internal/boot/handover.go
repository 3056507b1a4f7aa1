package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health"
	"github.com/powernode/powernode-agent/internal/health/guard"
	"github.com/powernode/powernode-agent/internal/health/units"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/switchroot"
)

// handOver makes the mounted union "/", leaves the facts of this boot, the agent and the trust
// policy in /run/powernode, and becomes the new root's init.
func (b *boot) handOver() error {
	luggage, err := b.pack()
	if err != nil {
		return err
	}
	defer luggage.close()
	root, err := switchroot.Open(b.rootDir(), switchroot.Options{Namespace: b.mode == Namespace})
	if err != nil {
		return err
	}
	defer root.Close()
	b.closeNetwork() // its addresses stay
	if b.mode == Machine {
		// Its /run goes along, and the guard has to run from there.
		b.putDown(luggage)
		b.bringUnits()
		b.startGuard()
	}
	freed, err := root.Switch()
	if err != nil {
		if refused(err) {
			_ = guard.Say(RunDir, guard.Stays, "the boot goes on without this root")
		}
		return err
	}
	if freed.Left != nil {
		b.voice.say("remark: part of the initramfs stays in memory: %v", freed.Left)
	}
	if b.mode != Machine {
		b.putDown(luggage)
	}
	b.voice.say("starting %s", b.config.Init[0])
	if b.mode == Machine {
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_ON) // as the kernel had it, until init says
	}
	err = unix.Exec(b.config.Init[0], b.config.Init, initEnvironment)
	return fault.New(fault.Broken, fault.Mount, "check the module that ships it", "start %s in the new root: %w", b.config.Init[0], err)
}

// putDown leaves the luggage in /run. A root that was proven is worth more without its facts than a
// machine that stopped.
func (b *boot) putDown(l *luggage) {
	if err := l.unpack(RunDir); err != nil {
		b.voice.say("remark: the facts of this boot can't be left in %s: %v", RunDir, err)
	}
}

// bringUnits has the new root's systemd start the agent. Without it the node runs, and nobody hears of it.
func (b *boot) bringUnits() {
	if err := units.Place(filepath.Dir(RunDir)); err != nil {
		b.remark(err.Error(), "start powernode-agent service by hand")
	}
}

// startGuard has the machine restart unless somebody finds the generation good in time. One that is
// known to be good needs none: restarting would lead nowhere else.
func (b *boot) startGuard() {
	if !b.running.IsTrial {
		return
	}
	_, err := guard.Start(guard.Spec{Agent: AgentPath, RunDir: RunDir, After: b.settings.HealthTimeout + guard.Margin})
	if err != nil {
		b.remark(err.Error(), "if the new root hangs, restart the machine by hand")
	}
}

// leaveRoot leaves the root to the init system of another's initramfs, with what goes along in /run,
// which that one moves.
func (b *boot) leaveRoot() error {
	luggage, err := b.pack()
	if err != nil {
		return err
	}
	defer luggage.close()
	if err := luggage.unpack(RunDir); err != nil {
		return fmt.Errorf("leave the facts of this boot in %s: %w", RunDir, err)
	}
	b.bringUnits()
	b.startGuard()
	b.voice.say("the root is ready at %s", b.config.Sysroot)
	return nil
}

// initEnvironment is all that init inherits: nothing of what the boot was configured with.
var initEnvironment = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=linux", "LANG=C.UTF-8",
}

// luggage is what goes from the old root to the new one by hand, because an ordinary system's
// /run isn't taken along. It is packed before the switch and needs nothing of the old root after.
type luggage struct {
	agent *os.File
	facts []byte
	trust map[string][]byte
}

func (b *boot) pack() (*luggage, error) {
	j := b.voice.journal
	j.change(func(d *Journal) {
		d.Outcome, d.EndedMillis, d.Stage, d.Failure = HandedOver, j.clock().Milliseconds(), "", ""
	})
	if err := j.save(); err != nil {
		b.remark(err.Error(), "")
	}
	facts := b.facts
	facts.StateDir = StateDir(PersistInRoot)
	facts.Persist, facts.Journal = b.persist, j.snapshot()
	facts.Health.HandedOverSeconds = int64(health.Uptime() / time.Second)
	var err error
	if facts.Memory, err = rootfs.ReadMemory(); err != nil {
		b.voice.say("remark: %v", err)
	}
	data, err := json.MarshalIndent(facts, "", "  ")
	if err != nil {
		return nil, err
	}
	agent, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("take the agent along: %w", err)
	}
	return &luggage{agent: agent, facts: data, trust: b.trust.Files}, nil
}

func (l *luggage) close() { l.agent.Close() }

// TrustName is the trust policy's name below RunDir's directory "trust", and AgentPath where the
// running boot keeps the agent's own binary.
const TrustName = "trust.yaml"

// The places of a booted system.
var (
	AgentPath = filepath.Join(RunDir, "bin", "powernode-agent")
	TrustPath = filepath.Join(RunDir, "trust", TrustName)
)

// unpack writes everything below dir, on a tmpfs of this boot.
func (l *luggage) unpack(dir string) error {
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	for name, data := range l.trust {
		path := filepath.Join(dir, "trust", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o444); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, FactsName), l.facts, 0o444); err != nil {
		return err
	}
	// One that an attempt before has left may be running.
	agent := filepath.Join(bin, filepath.Base(AgentPath))
	if err := os.Remove(agent); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := os.OpenFile(agent, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, l.agent); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
