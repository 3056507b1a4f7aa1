package persist

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/device"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/mount"
)

// attributes are those of the mount. Nothing on it is a device or gains rights by being run from
// there: the union and the binds made from it have attributes of their own. Reading an object must
// not write to the disk, so there are no access times. Programs are run from there (an upper, /var),
// so there is no noexec.
const attributes = mount.NoDev | mount.NoSUID | mount.Attr(unix.MOUNT_ATTR_NOATIME)

// try is one way to mount a file system.
type try struct {
	readOnly bool
	options  []mount.Option
	remark   string
	hint     string
}

// tries returns the ways to mount in order, best first. Mounting replays the journal; the last way
// doesn't, for a disk that can't be written to or whose journal is damaged.
func tries(d device.Device) []try {
	noReplay := map[string]mount.Option{
		"ext4": mount.Flag("noload"), "xfs": mount.Flag("norecovery"), "btrfs": mount.String("rescue", "nologreplay"),
	}[d.Type]
	var list []try
	if !d.ReadOnly {
		writable := try{}
		if d.Type == "ext4" {
			// The kernel's default is to go on after an error and damage more.
			writable.options = []mount.Option{mount.String("errors", "remount-ro")}
		}
		list = append(list, writable)
	}
	why, hint := "it couldn't be mounted writable", "check the file system with fsck, and look at the kernel's log"
	if d.ReadOnly {
		why, hint = "the disk is write-protected", "take the write protection off"
	}
	return append(list,
		try{readOnly: true, options: []mount.Option{mount.Flag("ro")}, remark: why, hint: hint},
		try{readOnly: true, options: []mount.Option{mount.Flag("ro"), noReplay}, remark: why + ", and its journal isn't replayed: the latest changes are missing", hint: hint})
}

// mountDisk mounts d at o.At, and fills p; it reports whether it could.
func (o Options) mountDisk(ctx context.Context, d device.Device, p *Persist) bool {
	if d.Type == "" { // it was prepared, or complete but for the mark
		d.Type = "ext4"
	}
	if err := o.hook("mount"); err != nil {
		p.remark("", "mount %s: %v", d.Path, err)
		return false
	}
	t, err := o.attach(ctx, d)
	if err != nil {
		p.remark("check the file system with fsck, or name another device", "%s isn't used: mount it: %v", d.Path, err)
		return false
	}
	p.Kind, p.Device, p.FSType, p.ReadOnly = Disk, d.Path, d.Type, t.readOnly
	if t.readOnly {
		p.remark(t.hint, "%s is mounted read-only: %s", d.Path, t.remark)
	} else if ro, err := isReadOnly(o.At); err != nil || ro {
		p.ReadOnly = true
		p.remark("check the file system with fsck, and look at the kernel's log", "the kernel made %s read-only when it mounted it", d.Path)
	}
	if d.Damaged {
		p.remark("check the file system with fsck", "the file system on %s noted errors in itself", d.Path)
	}
	if o.Prepare == Empty && d.Type == "ext4" && !p.ReadOnly {
		o.growDisk(ctx, d, p)
	}
	if s, err := probe(d.Path); err == nil {
		p.UUID, p.Size, p.Verity = s.UUID, s.Size, s.Verity
	}
	if d.Type == "ext4" && !p.Verity {
		p.remark("run tune2fs -O verity on it while it isn't mounted", "the ext4 on %s lacks the feature verity: the kernel can't enforce what is read from it", d.Path)
	}
	return true
}

// attach mounts d the best way there is.
func (o Options) attach(ctx context.Context, d device.Device) (try, error) {
	var errs []error
	for _, t := range tries(d) {
		m, err := o.mount(ctx, d, t)
		if err != nil {
			errs = append(errs, err)
			if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EBUSY) {
				break // another way wouldn't help
			}
			continue
		}
		defer m.Close()
		return t, m.Attach(o.At)
	}
	return try{}, errors.Join(errs...)
}

// mount makes the file system's mount, loading its driver where the kernel doesn't know it.
func (o Options) mount(ctx context.Context, d device.Device, t try) (*mount.Mount, error) {
	attrs := attributes
	if t.readOnly {
		attrs |= mount.ReadOnly
	}
	options := append([]mount.Option{mount.String("source", d.Path)}, t.options...)
	m, err := mount.New(d.Type, attrs, options...)
	if !errors.Is(err, unix.ENODEV) || o.Load == nil {
		return m, err
	}
	if loadErr := o.Load(ctx, d.Type); loadErr != nil {
		return nil, fmt.Errorf("%w: %w", err, loadErr)
	}
	return mount.New(d.Type, attrs, options...)
}

// isReadOnly reports whether writes below path are refused: by the mount, or by the file system
// itself, which ext4 turns to when it finds an error. Ask again later: it may happen any time.
func isReadOnly(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, fmt.Errorf("ask whether %s is read-only: %w", path, err)
	}
	return st.Flags&unix.ST_RDONLY != 0, nil
}

// probe reads the superblock as it is now; the driver shares the device's page cache.
func probe(path string) (device.Superblock, error) {
	f, err := os.Open(path)
	if err != nil {
		return device.Superblock{}, err
	}
	defer f.Close()
	return device.Probe(f)
}

func (o Options) hook(op string) error {
	durable.Reach("persist:" + op)
	if o.Hook == nil {
		return nil
	}
	return o.Hook("persist:" + op)
}
