package persist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/powernode/powernode-agent/internal/device"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
)

// Prepare says what may be done to the device.
type Prepare string

// The zero Prepare is No.
const (
	No Prepare = "no" // nothing
	// Empty allows to make a file system on the device where it is provably empty and where it was
	// named by its path, its serial number or its partition; and to let a file system on it grow to
	// the device's size.
	Empty Prepare = "empty"
)

// The kinds of a persist file system.
const (
	Disk   = "disk"
	Memory = "memory" // gone with the boot
)

// Options says what is to be mounted where.
type Options struct {
	// Spec names the device. The zero Spec is DefaultSpec.
	Spec    device.Spec
	Prepare Prepare
	// At is the directory to mount at. It is made where it doesn't exist.
	At string
	// Memory asks for a file system in memory without looking for a device. Must refuses one: the device
	// that Spec names has to be there and of use.
	Memory, Must bool
	// Wait is how long to wait for the device, within ctx; 0 is 30 seconds.
	Wait time.Duration
	// Grow is how long a file system may take to grow before it is left for the next boot; 0 is
	// 20 seconds.
	Grow time.Duration
	// Devices says where to look. Its Console is the one below.
	Devices device.Options
	// Console gets lines for a person who waits in front of the machine; nil for none.
	Console func(line string)
	// Load loads a kernel module ("xfs") that a file system needs; nil where none is to be loaded.
	Load func(ctx context.Context, module string) error
	// Hook is for tests: the labels begin with "persist:".
	Hook durable.Hook
}

// Persist is what was mounted.
type Persist struct {
	Path   string // where
	Kind   string // Disk or Memory
	Device string // its node; "" for a tmpfs
	FSType string
	UUID   string // of the file system on a disk
	Size   int64  // of the file system, in bytes; 0 where it isn't known
	// Verity reports that files may carry fs-verity, as far as the file system goes.
	Verity   bool
	ReadOnly bool // what is written there is refused
	Prepared bool // the file system was made by this call
	Remarks  []Remark
}

// Remark is something that a person should know, and what can be done about it.
type Remark struct{ Text, Hint string }

func (p *Persist) remark(hint, format string, args ...any) {
	p.Remarks = append(p.Remarks, Remark{fmt.Sprintf(format, args...), hint})
}

// DefaultSpec is the device that is looked for where none is named: the file system with Label, else
// the partition of that name.
func DefaultSpec() device.Spec {
	var parts []device.Spec
	for _, s := range []string{"LABEL=" + Label, "PARTLABEL=" + Label} {
		part, err := device.ParseSpec(s)
		if err != nil {
			panic("persist: internal error: " + err.Error()) // a constant
		}
		parts = append(parts, part)
	}
	return device.AnyOf(parts...)
}

// Mount mounts the persist file system at o.At. Something that is mounted there already is left and
// described. Where there is no device, or one that was never the node's, that is a remark, and memory takes its
// place, unless o.Must is set. A device that has, or may have, what the node kept and can't be used is an error of
// kind Retry: from memory the node would begin anew. Others say that not even memory can be had, or that ctx has ended.
func Mount(ctx context.Context, o Options) (Persist, error) {
	if err := os.MkdirAll(o.At, 0o755); err != nil {
		return Persist{}, fault.New(fault.Broken, fault.Mount, "", "mount the persist file system: %w", err)
	}
	if e, err := mount.At(o.At); err == nil {
		return mounted(o.At, e)
	} else if !errors.Is(err, mount.ErrNotMounted) {
		return Persist{}, fmt.Errorf("mount the persist file system: %w", err)
	}
	p := Persist{Path: o.At}
	if !o.Memory {
		done, present := o.fromDisk(ctx, &p)
		if done {
			return p, nil
		}
		if ctx.Err() != nil {
			return Persist{}, fmt.Errorf("mount the persist file system: %w", context.Cause(ctx))
		}
		if present || o.Must {
			why := p.Remarks[len(p.Remarks)-1]
			return Persist{}, fault.New(fault.Retry, fault.Mount, why.Hint, "mount the persist file system: %s", why.Text)
		}
	}
	if err := o.fromMemory(ctx, &p); err != nil {
		return Persist{}, fault.New(fault.Broken, fault.Mount, "give the machine a disk that is labelled "+Label, "mount a persist file system in memory: %w", err)
	}
	return p, nil
}

// mounted describes what is mounted there already.
func mounted(at string, e mount.Entry) (Persist, error) {
	p := Persist{Path: at, Kind: Disk, Device: e.Source, FSType: e.FSType}
	if e.FSType == "tmpfs" || e.FSType == "ramfs" || inMemory(e.Source) {
		p.Kind, p.Device = Memory, ""
	}
	if p.Kind == Disk && filepath.IsAbs(e.Source) { // a network's or container's source is no device
		if s, err := probe(e.Source); err == nil {
			p.UUID, p.Size, p.Verity = s.UUID, s.Size, s.Verity
		}
	}
	ro, err := isReadOnly(at)
	if err != nil {
		return Persist{}, err
	}
	if p.ReadOnly = ro; ro {
		p.remark("", "%s is mounted read-only", at)
	}
	return p, nil
}

// fromDisk fills p from the device and reports whether it is mounted. Where it isn't, the last of p's remarks
// says why, and present that the device may hold what the node kept.
func (o Options) fromDisk(ctx context.Context, p *Persist) (done, present bool) {
	d, err := o.find(ctx)
	if err != nil {
		p.remark(fault.HintOf(err), "%v", err)
		return false, false
	}
	was, err := stateOf(d.Path)
	if err != nil {
		p.remark("look at the kernel's log, and replace the disk", "look at %s: %v", d.Path, err)
		return false, true
	}
	plan := decide(o.Prepare, d, was)
	if plan.refused != "" {
		p.remark(plan.hint, "%s isn't used: %s", d.Path, plan.refused)
		return false, plan.several
	}
	if plan.prepare {
		o.say("preparing %s (%s, %s): it is empty", d.Path, d.Spec, size(d.Size))
		if err := prepareDevice(ctx, d.Path, d.Size, o.Hook); err != nil {
			p.remark(cmp.Or(fault.HintOf(err), "look at the kernel's log; the next boot tries it again"), "prepare %s: %v", d.Path, err)
			return false, false
		}
		p.Prepared = true
	}
	if plan.unmark {
		if err := removeMark(d.Path); err != nil {
			p.remark("look at the kernel's log; the next boot tries it again", "finish the preparation of %s: %v", d.Path, err)
			return false, false
		}
	}
	return o.mountDisk(ctx, d, p), true
}

// defaultWait and defaultGrow are how long waiting for a device, and growth, take where nothing is
// said: a SAN finds its disks in seconds, and growth is a matter of milliseconds where the disk can
// set blocks to zero by itself.
const (
	defaultWait = 30 * time.Second
	defaultGrow = 20 * time.Second
)

// find waits for the device.
func (o Options) find(ctx context.Context) (device.Device, error) {
	spec := o.Spec
	if spec.IsZero() {
		spec = DefaultSpec()
	}
	wait := o.Wait
	if wait == 0 {
		wait = defaultWait
	}
	ctx, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("it didn't come within %v", wait))
	defer cancel()
	devices := o.Devices
	devices.Console = o.Console
	return device.Wait(ctx, spec, devices)
}

func stateOf(path string) (state, error) {
	f, err := os.Open(path)
	if err != nil {
		return untouched, err
	}
	defer f.Close()
	return readState(f)
}

func (o Options) say(format string, args ...any) {
	if o.Console != nil {
		o.Console(fmt.Sprintf(format, args...))
	}
}

// size writes a number of bytes for a person.
func size(n int64) string {
	switch {
	case n >= 10<<40:
		return fmt.Sprintf("%d TiB", n>>40)
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	default:
		return fmt.Sprintf("%d MiB", n>>20)
	}
}
