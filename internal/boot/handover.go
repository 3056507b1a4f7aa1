package boot

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/guard"
	"github.com/powernode/powernode-agent/internal/health/units"
	"github.com/powernode/powernode-agent/internal/services"
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
	b.stopDrivers()
	if b.mode == Machine {
		// Its /run goes along, and the guard has to run from there.
		b.putDown(luggage)
		b.bringUnits()
		b.bringServices()
		b.startGuard()
		luggage.facts.Remarks = b.facts.Remarks // written with what was freed
	}
	freed, err := root.Switch()
	if err != nil {
		if refused(err) {
			_ = guard.Say(RunDir, b.running.Generation, guard.Stays, "the boot goes on without this root")
			return err
		}
		return fmt.Errorf("%w: %w", errSwitched, err)
	}
	if freed.Left != nil {
		b.voice.say("remark: part of the initramfs stays in memory: %v", freed.Left)
	}
	if err := luggage.measure(Freed{Files: freed.Files, Bytes: freed.Bytes}); err != nil {
		b.voice.say("remark: %v", err)
	}
	if b.mode != Machine {
		b.putDown(luggage)
		if err := luggage.unpackUpper(); err != nil {
			b.voice.say("remark: the running root can't be changed live: %v", err)
		}
	} else if err := luggage.unpackFacts(RunDir); err != nil {
		b.voice.say("remark: what was freed of the initramfs can't be written down: %v", err)
	}
	b.voice.say("starting %s", b.config.Init[0])
	if b.mode == Machine {
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_ON) // as the kernel had it, until init says
	}
	err = unix.Exec(b.config.Init[0], b.config.Init, initEnvironment)
	return fmt.Errorf("%w: %w", errSwitched, fault.New(fault.Broken, fault.Mount, "check the module that ships it", "start %s in the new root: %w", b.config.Init[0], err))
}

// errSwitched says that an error came when there was no way back: the old root is gone, or half of it.
var errSwitched = errors.New("the hand-over stopped halfway")

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

// bringServices has the new root's systemd run what the modules' manifests say.
func (b *boot) bringServices() {
	_, err := services.Place(filepath.Dir(RunDir), b.makeServices())
	switch {
	case fault.AreaOf(err) == fault.Partial:
		b.remark(oneLine(err), fault.HintOf(err))
	case err != nil:
		b.remark(err.Error(), "services of modules may be missing")
	}
}

// makeServices makes the units of the proven modules. A module whose services can't be made is without them; the others
// and the node go on.
func (b *boot) makeServices() services.Set {
	modules := make([]services.Module, len(b.proven))
	for i, p := range b.proven {
		modules[i] = services.Module{Name: p.Wanted.Name, Version: p.Wanted.Version, Manifest: p.Manifest}
	}
	node := services.ProbeNode("/", AgentPath, b.trust.PrivilegedServices)
	node.Profiles = nil // the new root's system loads its own
	set := services.MakeAll(modules, node)
	for _, r := range set.Refused {
		b.remark(r.Reason, r.Hint)
	}
	return set
}

// startGuard has the machine restart unless somebody finds the generation good in time. One that is
// known to be good needs none: restarting would lead nowhere else.
func (b *boot) startGuard() {
	if !b.running.IsTrial {
		return
	}
	_, err := guard.Start(guard.Spec{Agent: AgentPath, RunDir: RunDir, Generation: b.running.Generation, After: b.settings.HealthTimeout + guard.Margin})
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
	remarks := len(b.facts.Remarks)
	b.bringUnits()
	b.bringServices()
	b.startGuard()
	if luggage.facts.Remarks = b.facts.Remarks; len(b.facts.Remarks) > remarks {
		if err := luggage.unpackFacts(RunDir); err != nil {
			b.voice.say("remark: the last remarks can't be written down: %v", err)
		}
	}
	b.voice.say("the root is ready at %s", b.config.Sysroot)
	return nil
}

// initEnvironment is all that init inherits: nothing of what the boot was configured with.
var initEnvironment = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=linux", "LANG=C.UTF-8",
}
