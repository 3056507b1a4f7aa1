package device

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// blocksMax bounds the block devices that are looked at; a large storage server has some thousand.
const blocksMax = 16384

// block is a block device as sysfs shows it, and what was read from it so far.
type block struct {
	name, node, dir  string // dir is the resolved directory in sysfs
	number           int    // of the partition
	partName, partID string
	partType         string
	size             int64
	readOnly         bool
	super            *Superblock
	superErr         error
}

// blocks lists the block devices that have a size, by name.
func (o Options) blocks() ([]*block, error) {
	class := filepath.Join(o.sysfs(), "class/block")
	entries, err := os.ReadDir(class)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel that knows no block device yet
	}
	if err != nil {
		return nil, fmt.Errorf("list the block devices: %w", err)
	}
	if len(entries) > blocksMax {
		return nil, fmt.Errorf("list the block devices: there are more than %d", blocksMax)
	}
	var blocks []*block
	for _, e := range entries {
		if b, ok := o.block(filepath.Join(class, e.Name())); ok {
			blocks = append(blocks, b)
		}
	}
	return blocks, nil
}

// block reads one device's directory; ok is false where it went away, has no size or is a part of
// another device.
func (o Options) block(path string) (*block, bool) {
	dir, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, false
	}
	env := readEnv(filepath.Join(dir, "uevent"))
	sectors, err := strconv.ParseInt(readLine(filepath.Join(dir, "size")), 10, 64)
	if err != nil || sectors <= 0 || sectors > 1<<53 || env["DEVNAME"] == "" || !filepath.IsLocal(env["DEVNAME"]) {
		return nil, false
	}
	if holders, err := os.ReadDir(filepath.Join(dir, "holders")); err == nil && len(holders) > 0 {
		return nil, false
	}
	b := &block{
		name: filepath.Base(path), node: filepath.Join(o.dev(), env["DEVNAME"]), dir: dir,
		partName: env["PARTNAME"], partID: strings.ToLower(env["PARTUUID"]),
		size:     sectors * 512, // sysfs counts in 512 bytes, whatever the device's sectors are
		readOnly: readLine(filepath.Join(dir, "ro")) == "1",
	}
	b.number, _ = strconv.Atoi(readLine(filepath.Join(dir, "partition")))
	return b, true
}

// serial returns a disk's serial number: virtio shows it at the disk, NVMe at the controller, SCSI
// and SATA in page 0x80 of the device's vital product data (SPC-4, 7.8.15: four bytes of header).
func (b *block) serial() string {
	for _, file := range []string{"serial", "device/serial"} {
		if s := strings.TrimSpace(readLine(filepath.Join(b.dir, file))); s != "" {
			return s
		}
	}
	page := readFile(filepath.Join(b.dir, "device/vpd_pg80"))
	if len(page) <= 4 {
		return ""
	}
	return strings.TrimSpace(strings.TrimRight(string(page[4:]), "\x00"))
}

// removable reports whether the device, or the disk that it is a part of, is made to be attached by anybody: its
// medium can be taken out, or it is on USB.
func (b *block) removable() bool {
	disk := b.dir
	if b.number != 0 {
		disk = filepath.Dir(disk)
	}
	return readLine(filepath.Join(disk, "removable")) == "1" || strings.Contains(disk, "/usb")
}

// names lists blocks for a person, without the kernel's empty loop and RAM disks.
func names(blocks []*block) []string {
	var list []string
	for _, b := range blocks {
		if strings.HasPrefix(b.name, "ram") || strings.HasPrefix(b.name, "loop") {
			continue
		}
		what := b.probe().Type
		if l := b.probe().Label; l != "" {
			what += fmt.Sprintf(" %q", l)
		}
		list = append(list, strings.TrimSpace(b.name+" "+what))
	}
	slices.Sort(list)
	return list
}

// openBlock opens a device for reading; a drive without a medium answers at once.
func openBlock(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

func (o Options) sysfs() string { return orDefault(o.Sysfs, "/sys") }
func (o Options) dev() string   { return orDefault(o.Dev, "/dev") }

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// sysfsMax is the most that is read of a file of sysfs, which gives a page.
const sysfsMax = 4096

func readFile(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, _ := io.ReadAll(io.LimitReader(f, sysfsMax))
	return data
}

func readLine(path string) string {
	line, _, _ := strings.Cut(string(readFile(path)), "\n")
	return line
}

// readEnv reads KEY=VALUE lines.
func readEnv(path string) map[string]string {
	env := map[string]string{}
	s := bufio.NewScanner(strings.NewReader(string(readFile(path))))
	for s.Scan() {
		if key, value, ok := strings.Cut(s.Text(), "="); ok {
			env[key] = value
		}
	}
	return env
}
