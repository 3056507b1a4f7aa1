package device

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Device is a block device that was found.
type Device struct {
	Path      string // its node, such as /dev/vda2
	Name      string // the kernel's name, such as vda2
	Spec      string // the name of the Spec that it was found by
	Exact     bool   // that name is about the device itself, not about a file system on it
	Size      int64  // in bytes
	ReadOnly  bool   // the kernel refuses writes to it
	Partition int    // its number, 0 for a whole disk
	Superblock
	// Empty reports that there is nothing on it (IsEmpty). It is looked at only where Exact is set
	// and no file system was found.
	Empty bool
	// Others are the nodes of further devices that the same name fits, without those that may be pulled out
	// where others can't. The first one by the kernel's name is taken, which is no better a choice than they.
	Others []string
}

// Options says where to look. The zero Options is right outside of tests.
type Options struct {
	Sysfs string // "" is /sys
	Dev   string // "" is /dev
	// Console gets lines for a person who waits in front of the machine; nil for none.
	Console func(line string)
	// Listen makes the source of events that Wait wakes up by; nil is Listen.
	Listen func() (Events, error)
}

// Find looks for a device once. ok is false where there is none now. Devices that can't be read are
// passed over, and so are those that another device (RAID, LVM, LUKS) is made of.
func Find(spec Spec, o Options) (found Device, ok bool, err error) {
	blocks, err := o.blocks()
	if err != nil {
		return Device{}, false, err
	}
	for _, n := range spec.names {
		var fits []*block
		for _, b := range blocks {
			if o.fits(b, n) {
				fits = append(fits, b)
			}
		}
		if len(fits) == 0 {
			continue
		}
		if fixed := slices.DeleteFunc(slices.Clone(fits), (*block).removable); len(fixed) > 0 {
			fits = fixed
		}
		d, err := o.device(fits[0], n)
		for _, other := range fits[1:] {
			d.Others = append(d.Others, other.node)
		}
		return d, err == nil, err
	}
	return Device{}, false, nil
}

// fits reports whether a name stands for b.
func (o Options) fits(b *block, n name) bool {
	switch n.by {
	case byPath:
		return o.samePath(b, n.value)
	case bySerial:
		return b.number == 0 && b.serial() == n.value
	case byPartLabel:
		o.readTable(b, b.partName == "")
		return b.partName == n.value
	case byPartUUID:
		o.readTable(b, b.partID == "")
		return b.partID == n.value
	case byUUID:
		return b.probe().Type != "" && b.probe().UUID == n.value
	case byLabel:
		s := b.probe()
		return s.Type != "" && s.Label != "" && (s.Label == n.value || s.Type == "ext4" && s.Label == cut(n.value, extLabelMax))
	}
	return false
}

// extLabelMax is how much of a label ext4 keeps; mkfs.ext4 cuts a longer one off with a warning.
const extLabelMax = 16

func cut(s string, n int) string { return s[:min(n, len(s))] }

// samePath reports whether path is b's node or a symlink to it, as udev makes them.
func (o Options) samePath(b *block, path string) bool {
	path = filepath.Join(o.dev(), strings.TrimPrefix(path, "/dev/"))
	if path == b.node {
		return true
	}
	resolved, err := filepath.EvalSymlinks(path)
	return err == nil && resolved == b.node
}

// readTable completes a partition's name and GUID from the disk where the kernel doesn't tell them
// (the GUID before Linux 6.9).
func (o Options) readTable(b *block, wanted bool) {
	if !wanted || b.number == 0 {
		return
	}
	disk, ok := o.block(filepath.Dir(b.dir))
	if !ok {
		return
	}
	sector, err := strconv.ParseInt(readLine(filepath.Join(disk.dir, "queue/logical_block_size")), 10, 64)
	if err != nil {
		sector = 512
	}
	f, err := openBlock(disk.node)
	if err != nil {
		return
	}
	defer f.Close()
	if table, err := readTable(f, sector); err == nil {
		b.partName, b.partID, b.partType = table[b.number].label, table[b.number].uuid, table[b.number].kind
	}
}

// probe reads the superblock, once.
func (b *block) probe() Superblock {
	if b.super == nil {
		b.super = &Superblock{}
		f, err := openBlock(b.node)
		if err == nil {
			*b.super, err = Probe(f)
			f.Close()
		}
		b.superErr = err
	}
	return *b.super
}

// device says all about b that a Device holds. The error is one of reading it.
func (o Options) device(b *block, n name) (Device, error) {
	d := Device{
		Path: b.node, Name: b.name, Spec: n.String(), Exact: n.exact(),
		Size: b.size, ReadOnly: b.readOnly, Partition: b.number, Superblock: b.probe(),
	}
	if b.superErr != nil {
		return d, fmt.Errorf("read what is on %s: %w", b.node, b.superErr)
	}
	if d.Type != "" || !d.Exact {
		return d, nil
	}
	f, err := openBlock(b.node)
	if err == nil {
		d.Empty, err = IsEmpty(f, b.size)
		f.Close()
	}
	if err != nil {
		return d, fmt.Errorf("read whether %s is empty: %w", b.node, err)
	}
	return d, nil
}
