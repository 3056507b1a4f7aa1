package boot

import (
	"context"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/bootconfig"
	"github.com/powernode/powernode-agent/internal/version"
)

// Run boots. As the machine's first process it never returns, whatever happens: what can't be booted
// ends in the recovery environment. In namespaces it returns only with an error, or once the new
// root's init couldn't be started; for another's initramfs, once the root is ready or it was told to end, and
// until then it recovers as the first process does. When it returns a
// *StageError nothing was switched to, and what was mounted is gone again.
func Run(ctx context.Context, config Config) error {
	if err := config.fill(); err != nil {
		return err
	}
	b := newBoot(config)
	defer b.close()
	switch b.mode {
	case Machine:
		if err := mountAPI(false); err != nil && !theFirst(err) {
			return err
		} else if err != nil {
			b.unprepared = err
		}
		return newMachine(b).run(ctx)
	case Namespace:
		if err := mountAPI(true); err != nil {
			return err
		}
	case Sysroot:
		if inInitramfs("/") {
			return newMachine(b).run(ctx)
		}
	}
	err := b.course.run(ctx, 0)
	if err == nil {
		err = ctx.Err() // the last moment at which nothing has been switched
	}
	if err != nil {
		b.failed(err, Ended)
		return err
	}
	if b.mode == Sysroot {
		err := b.leaveRoot()
		if err != nil {
			b.undo()
		}
		return err
	}
	return b.handOver()
}

// inInitramfs reports whether the root directory is in memory, as every initramfs is: only there may a boot that fails
// restart the machine, which is somebody's system otherwise.
func inInitramfs(root string) bool {
	var stat unix.Statfs_t
	if err := unix.Statfs(root, &stat); err != nil {
		return false
	}
	return stat.Type == unix.RAMFS_MAGIC || stat.Type == unix.TMPFS_MAGIC
}

// theFirst reports whether err is about a machine whose first process this is: the errors that say it
// isn't are refusals.
func theFirst(err error) bool { return os.Getpid() == 1 && !refused(err) }

func newBoot(config Config) *boot {
	b := &boot{config: config, mode: config.mode(), settings: bootconfig.Default(), persistDir: config.Persist, persist: Persist{Kind: "directory"}, setTime: setTimeOfDay}
	j := &journal{clock: sincePowerOn, doc: Journal{
		BootID: bootID(), Mode: b.mode, Agent: version.Get().Version, Begun: config.Now().UTC(), Outcome: UnderWay,
		Lines: []Line{}, Stages: []StageRecord{},
	}}
	if b.mode == Namespace {
		begun := time.Now()
		j.clock = func() time.Duration { return time.Since(begun) }
	}
	j.doc.StartedMillis = j.clock().Milliseconds()
	b.facts.BootedAt = j.doc.Begun
	b.voice = &voice{w: config.Console, journal: j}
	b.course = &course{stages: b.stages(), voice: b.voice, await: map[string]func(context.Context) error{"enroll": b.awaitClaim}}
	return b
}

// failed notes why the boot doesn't go on, on the disk too where there is one.
func (b *boot) failed(err error, outcome Outcome) {
	j := b.voice.journal
	j.change(func(d *Journal) {
		d.Outcome, d.Stage, d.Failure = outcome, stageOf(err), oneLine(err)
	})
	if err := j.save(); err != nil {
		b.voice.say("remark: %v", err)
	}
}

// sincePowerOn is the kernel's clock of its own time, the same as that of its messages.
func sincePowerOn() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// bootID returns the kernel's ID of this boot, or "" where /proc isn't there yet.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(data) > 64 {
		return ""
	}
	return strings.TrimSpace(string(data))
}
