package boot

import (
	"context"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/bootconfig"
	"github.com/powernode/powernode-agent/internal/device"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/kmod"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/persist"
)

// findPersist mounts what outlives the boot, or memory in its place. A boot that goes on from memory
// because there was no disk looks for one again whenever it is tried again.
func (b *boot) findPersist(ctx context.Context) (string, error) {
	if b.config.Persist != "" {
		return b.persistDir + ", as --persist says", nil
	}
	options, err := b.persistOptions()
	if err != nil {
		return "", err
	}
	if b.persistDir != "" {
		if b.persist.Kind != persist.Memory || options.Memory || !diskCame(options) {
			return b.persistWords(), nil
		}
		b.remark("a disk came; what was kept in memory is given up for it", "")
		b.dropPersist()
	}
	p, err := persist.Mount(ctx, options)
	if err != nil {
		return "", err
	}
	for _, r := range p.Remarks {
		b.remark(r.Text, r.Hint)
	}
	b.persistDir = p.Path
	b.persist = Persist{Kind: p.Kind, Device: p.Device, FSType: p.FSType, ReadOnly: p.ReadOnly}
	return b.persistWords(), nil
}

func (b *boot) persistOptions() (persist.Options, error) {
	s := &b.settings
	o := persist.Options{
		At: PersistInRoot, Prepare: persist.Prepare(s.PersistPrepare), Wait: s.PersistTimeout,
		Memory: s.Persist == bootconfig.Memory, Must: s.Persist != "" && s.Persist != bootconfig.Memory,
		Console: func(line string) { b.voice.say("          %s", line) },
		Load:    b.loadModule,
	}
	if s.Persist != "" && !o.Memory {
		var err error
		if o.Spec, err = device.ParseSpec(s.Persist); err != nil {
			return o, err
		}
	}
	return o, nil
}

// loadModule loads one kernel module.
func (b *boot) loadModule(ctx context.Context, name string) error {
	dir, err := kmod.Dir("/")
	if err != nil {
		return err
	}
	loader := &kmod.Loader{Dir: dir, Blocked: blocked(b.cmdline)}
	defer loader.Close() //nolint:errcheck // only read from
	_, err = loader.Load(ctx, name)
	return err
}

// diskCame reports whether the device is there by now.
func diskCame(o persist.Options) bool {
	spec := o.Spec
	if spec.IsZero() {
		spec = persist.DefaultSpec()
	}
	_, ok, err := device.Find(spec, o.Devices)
	return ok && err == nil
}

// diskChances is how many attempts a boot from memory that nobody asked for leaves to a disk that comes late,
// before it spends the node's bootstrap token.
const diskChances = 3

// spareToken refuses to enroll from memory as long as a disk may come: the platform takes back the certificate
// that is on it when the node enrolls anew.
func (b *boot) spareToken() error {
	if b.persist.Kind != persist.Memory || b.settings.Persist == bootconfig.Memory || !b.triesAgain {
		return nil
	}
	if b.chances++; b.chances > diskChances {
		return nil
	}
	return fault.New(fault.Retry, fault.Mount, "attach it; a node that has none is told so by powernode.persist=memory",
		"there is no persist disk, and enrolling from memory takes a bootstrap token: that is left for attempt %d", diskChances+1)
}

// dropPersist gives up what is mounted, with all that was opened there.
func (b *boot) dropPersist() {
	b.undo()
	b.voice.journal.close()
	b.closeStore()
	if _, err := mount.At(b.persistDir); err == nil {
		_ = unix.Unmount(b.persistDir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	b.persistDir, b.persist = "", Persist{}
}

// persistWords says what persist is, for people.
func (b *boot) persistWords() string {
	p := b.persist
	words := []string{b.persistDir}
	switch p.Kind {
	case persist.Memory:
		return "memory: there is no disk"
	case persist.Disk:
		words = []string{p.Device, p.FSType}
	}
	if p.ReadOnly {
		words = append(words, "read-only")
	}
	return strings.Join(words, ", ")
}
