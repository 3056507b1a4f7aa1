package device

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fault"
)

// machine is a /sys and a /dev with block devices that are files.
type machine struct {
	t   *testing.T
	dir string
}

func newMachine(t *testing.T) *machine { return &machine{t, t.TempDir()} }

func (m *machine) options() Options {
	return Options{Sysfs: filepath.Join(m.dir, "sys"), Dev: filepath.Join(m.dir, "dev")}
}

func (m *machine) write(path, content string) {
	m.t.Helper()
	path = filepath.Join(m.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// disk adds a disk; a parent makes it that disk's partition with the number.
func (m *machine) disk(name, parent string, number int, content []byte, attributes map[string]string) {
	m.t.Helper()
	dir := "sys/devices/pci0/" + name
	if parent != "" {
		dir = "sys/devices/pci0/" + parent + "/" + name
		m.write(dir+"/partition", fmt.Sprintln(number))
	}
	m.write(dir+"/uevent", "MAJOR=254\nMINOR=0\nDEVNAME="+name+"\n"+attributes["uevent"])
	m.write(dir+"/size", fmt.Sprintln(len(content)/512))
	for key, value := range attributes {
		if key != "uevent" {
			m.write(dir+"/"+key, value)
		}
	}
	m.write("dev/"+name, string(content))
	class := filepath.Join(m.dir, "sys/class/block")
	if err := os.MkdirAll(class, 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(m.dir, dir), filepath.Join(class, name)); err != nil {
		m.t.Fatal(err)
	}
}

const diskSize = 2 << 20

func blank() []byte { return make([]byte, diskSize) }

// ext4 is a disk with the parts of an ext4 superblock that count.
func ext4(label string) []byte {
	d := blank()
	s := d[extOffset:]
	le := binary.LittleEndian
	le.PutUint32(s[extBlocksLow:], 512)
	le.PutUint32(s[extLogBlockSize:], 2)
	le.PutUint16(s[extMagic:], extMagicValue)
	le.PutUint16(s[extState:], 1)
	le.PutUint32(s[extROCompat:], extROCompatVerity)
	copy(s[extUUID:], []byte("0123456789abcdef"))
	copy(s[extLabel:extLabel+16], label)
	return d
}

func xfs(label string) []byte {
	d := blank()
	copy(d, "XFSB")
	binary.BigEndian.PutUint32(d[4:], 4096)
	binary.BigEndian.PutUint64(d[8:], 512)
	copy(d[108:120], label)
	return d
}

func btrfs(label string) []byte {
	d := blank()
	s := d[btrfsOffset:]
	copy(s[0x40:], "_BHRfS_M")
	binary.LittleEndian.PutUint64(s[0x70:], diskSize)
	copy(s[0x12b:], label)
	return d
}

// gpt is a disk whose second partition has a label.
func gpt(label string) []byte {
	d := blank()
	le := binary.LittleEndian
	d[510], d[511] = 0x55, 0xaa
	entries := d[2*512 : 2*512+128*128]
	e := entries[128:]
	copy(e, "type type type t")
	copy(e[16:], []byte{0x78, 0x56, 0x34, 0x12, 0x34, 0x12, 0x78, 0x56, 1, 2, 3, 4, 5, 6, 7, 8})
	for i, u := range utf16.Encode([]rune(label)) {
		le.PutUint16(e[56+2*i:], u)
	}
	h := d[512:1024]
	copy(h, "EFI PART")
	le.PutUint32(h[12:], 92)
	le.PutUint64(h[72:], 2)
	le.PutUint32(h[80:], 128)
	le.PutUint32(h[84:], 128)
	le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
	return d
}

func spec(t *testing.T, s string) Spec {
	t.Helper()
	parsed, err := ParseSpec(s)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestFind(t *testing.T) {
	m := newMachine(t)
	m.disk("vda", "", 0, gpt("powernode-persist"), map[string]string{"serial": "PN 1\n", "queue/logical_block_size": "512\n"})
	m.disk("vda1", "vda", 1, blank(), map[string]string{"uevent": "PARTN=1\nPARTNAME=esp\nPARTUUID=AAAA-1\n"})
	m.disk("vda2", "vda", 2, blank(), nil) // the kernel says nothing of the partition
	m.disk("vdb", "", 0, ext4("powernode-persist"), map[string]string{"ro": "1\n"})
	m.disk("vdc", "", 0, xfs("data"), map[string]string{"device/vpd_pg80": "\x00\x80\x00\x06  S-42"})
	m.disk("vdd", "", 0, btrfs("a label that is longer than sixteen bytes"), map[string]string{"device/serial": "nvme 7  \n"})
	m.disk("vde", "", 0, ext4("twice"), nil)
	m.disk("vdf", "", 0, ext4("twice"), nil)
	m.disk("vdg", "", 0, ext4("member"), map[string]string{"holders/md0": ""})
	m.disk("loop0", "", 0, nil, nil)
	dev := m.options().Dev
	if err := os.MkdirAll(filepath.Join(dev, "disk"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../vdc", filepath.Join(dev, "disk/mine")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		spec string
		want *Device
	}{
		{"/dev/vda2", &Device{Name: "vda2", Exact: true, Partition: 2, Empty: true}},
		{"/dev/vda", &Device{Name: "vda", Exact: true}},
		{"/dev/disk/mine", &Device{Name: "vdc", Exact: true, Superblock: Superblock{Type: "xfs", Label: "data", UUID: zeroUUID, Size: diskSize}}},
		{"PARTLABEL=powernode-persist", &Device{Name: "vda2", Exact: true, Partition: 2, Empty: true}},
		{"PARTLABEL=esp", &Device{Name: "vda1", Exact: true, Partition: 1, Empty: true}},
		{"PARTUUID=aaaa-1", &Device{Name: "vda1", Exact: true, Partition: 1, Empty: true}},
		{"PARTUUID=12345678-1234-5678-0102-030405060708", &Device{Name: "vda2", Exact: true, Partition: 2, Empty: true}},
		{"SERIAL=PN 1", &Device{Name: "vda", Exact: true}},
		{"SERIAL=S-42", &Device{Name: "vdc", Exact: true, Superblock: Superblock{Type: "xfs", Label: "data", UUID: zeroUUID, Size: diskSize}}},
		{"SERIAL=nvme 7", &Device{Name: "vdd", Exact: true, Superblock: Superblock{Type: "btrfs", Label: "a label that is longer than sixteen bytes", UUID: zeroUUID, Size: diskSize, Verity: true}}},
		{"LABEL=powernode-persist", &Device{Name: "vdb", ReadOnly: true, Superblock: extWith("powernode-persis")}},
		{"UUID=30313233-3435-3637-3839-616263646566", &Device{Name: "vdb", ReadOnly: true, Superblock: extWith("powernode-persis"), Others: []string{dev + "/vde", dev + "/vdf"}}},
		{"LABEL=twice", &Device{Name: "vde", Superblock: extWith("twice"), Others: []string{dev + "/vdf"}}},
		{"LABEL=member", nil},
		{"LABEL=nobody", nil},
		{"/dev/loop0", nil},
	} {
		d, ok, err := Find(spec(t, c.spec), m.options())
		if err != nil {
			t.Errorf("%s: %v", c.spec, err)
			continue
		}
		if ok != (c.want != nil) {
			t.Errorf("%s: found %v", c.spec, ok)
			continue
		}
		if c.want == nil {
			continue
		}
		c.want.Path, c.want.Spec, c.want.Size = filepath.Join(dev, c.want.Name), c.spec, diskSize
		if diff := cmp.Diff(*c.want, d); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.spec, diff)
		}
	}
	both := AnyOf(spec(t, "LABEL=nobody"), spec(t, "LABEL=twice"))
	if d, ok, err := Find(both, m.options()); err != nil || !ok || d.Name != "vde" {
		t.Errorf("the second way: %+v, %v, %v", d, ok, err)
	}
	if got := both.String(); got != "LABEL=nobody or LABEL=twice" {
		t.Error(got)
	}
}

func TestAll(t *testing.T) {
	m := newMachine(t)
	m.disk("vda", "", 0, gpt("boot"), map[string]string{"queue/logical_block_size": "512\n"})
	m.disk("vda2", "vda", 2, ext4("files"), map[string]string{"uevent": "PARTN=2\nPARTNAME=boot\n"})
	m.disk("sdb", "", 0, blank(), map[string]string{"removable": "1\n"})
	m.disk("loop0", "", 0, nil, nil)
	got, err := All(m.options())
	dev := m.options().Dev
	want := []Listed{
		{Path: dev + "/sdb", Name: "sdb", Size: diskSize, Removable: true},
		{Path: dev + "/vda", Name: "vda", Size: diskSize},
		{Path: dev + "/vda2", Name: "vda2", Size: diskSize, Partition: 2, PartLabel: "boot", PartType: "65707974-7420-7079-6520-747970652074", Superblock: extWith("files")},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

// TestFindPrefersFixedDisks: a stick with the same label doesn't take the place of the machine's disk, nor make it
// doubtful.
func TestFindPrefersFixedDisks(t *testing.T) {
	m := newMachine(t)
	m.disk("sda", "", 0, gpt("node"), map[string]string{"removable": "1\n", "queue/logical_block_size": "512\n"})
	m.disk("sda2", "sda", 2, ext4("node"), nil)
	m.disk("sdb", "", 0, ext4("node"), nil)
	m.write("sys/devices/pci0/usb1/power/control", "on\n")
	link := filepath.Join(m.dir, "sys/class/block/sdb")
	if err := errors.Join(os.Rename(filepath.Join(m.dir, "sys/devices/pci0/sdb"), filepath.Join(m.dir, "sys/devices/pci0/usb1/sdb")),
		os.Remove(link), os.Symlink(filepath.Join(m.dir, "sys/devices/pci0/usb1/sdb"), link)); err != nil {
		t.Fatal(err)
	}
	m.disk("sdc", "", 0, ext4("node"), nil)
	m.disk("sdd", "", 0, ext4("stick"), map[string]string{"removable": "1\n"})
	for s, want := range map[string]string{"LABEL=node": "sdc", "LABEL=stick": "sdd", "PARTLABEL=node": "sda2"} {
		if d, ok, err := Find(spec(t, s), m.options()); err != nil || !ok || d.Name != want || len(d.Others) > 0 {
			t.Errorf("%s: %+v, %v, %v", s, d, ok, err)
		}
	}
}

const zeroUUID = "00000000-0000-0000-0000-000000000000"

func extWith(label string) Superblock {
	return Superblock{Type: "ext4", Label: label, UUID: "30313233-3435-3637-3839-616263646566", Size: diskSize, BlockSize: 4096, Verity: true}
}

func TestParseSpec(t *testing.T) {
	for _, bad := range []string{"", "vda", "LABEL=", "LABEL=\"\"", "COLOUR=red", "/etc/passwd", "/dev/../etc/passwd", "/dev", "LABEL=a\x1b[2J", "SERIAL=" + strings.Repeat("x", 256)} {
		if s, err := ParseSpec(bad); err == nil || fault.KindOf(err) != fault.Refuse || fault.HintOf(err) == "" {
			t.Errorf("%q: %v, %v", bad, s, err)
		}
	}
	for in, want := range map[string]string{"UUID=ABC": "UUID=abc", `LABEL="a b"`: "LABEL=a b", "/dev/./vda": "/dev/vda"} {
		if got := spec(t, in).String(); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestIsEmpty(t *testing.T) {
	for _, at := range []int{-1, 0, EmptyHead - 1, EmptyHead, diskSize - EmptyTail - 1, diskSize - EmptyTail, diskSize - 1} {
		d := blank()
		if at >= 0 {
			d[at] = 1
		}
		want := at < 0 || at == EmptyHead || at == diskSize-EmptyTail-1
		if got, err := IsEmpty(bytes.NewReader(d), diskSize); got != want || err != nil {
			t.Errorf("a byte at %d: %v, %v", at, got, err)
		}
	}
	if got, err := IsEmpty(bytes.NewReader(blank()), 1<<20); got || err != nil {
		t.Errorf("a small device: %v, %v", got, err)
	}
	if got, err := IsEmpty(bytes.NewReader(blank()), 2*diskSize); got || err == nil {
		t.Errorf("a device that ends early: %v, %v", got, err)
	}
}

func TestMBRPartition(t *testing.T) {
	d := blank()
	d[510], d[511] = 0x55, 0xaa
	binary.LittleEndian.PutUint32(d[440:], 0xdeadbeef)
	d[446+16+4] = 0x83
	table, err := readTable(bytes.NewReader(d), 512)
	if diff := cmp.Diff(map[int]partition{2: {uuid: "deadbeef-02", kind: "0x83"}}, table, cmp.AllowUnexported(partition{})); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

// source is a source of events that the test sends.
type source struct {
	events chan Event
}

func (s *source) Next(ctx context.Context) (Event, error) {
	select {
	case <-ctx.Done():
		return Event{}, context.Cause(ctx)
	case e, ok := <-s.events:
		if !ok {
			return Event{}, ErrLost
		}
		return e, nil
	}
}
func (s *source) Close() error { return nil }

func TestWaitWakesUpByEvents(t *testing.T) {
	m := newMachine(t)
	m.disk("vda", "", 0, ext4("other"), nil)
	synctest.Test(t, func(t *testing.T) {
		s := &source{events: make(chan Event)}
		o := m.options()
		o.Listen = func() (Events, error) { return s, nil }
		var said []string
		o.Console = func(line string) { said = append(said, line) }
		go func() {
			s.events <- Event{Action: "add", Subsystem: "net"}
			time.Sleep(2100 * time.Millisecond)
			m.disk("vdb", "", 0, ext4("mine"), nil)
			s.events <- Event{Action: "add", Subsystem: "block"}
		}()
		started := time.Now()
		d, err := Wait(t.Context(), spec(t, "LABEL=mine"), o)
		if err != nil || d.Name != "vdb" {
			t.Errorf("%+v, %v", d, err)
		}
		if took := time.Since(started); took != 2100*time.Millisecond {
			t.Errorf("it took %v of the bubble's time", took)
		}
		if len(said) != 1 || said[0] != `waiting for the device LABEL=mine since 2 s; there are vda ext4 "other"` {
			t.Errorf("%q", said)
		}
		synctest.Wait()
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	m := newMachine(t)
	m.disk("vda", "", 0, ext4("other"), nil)
	synctest.Test(t, func(t *testing.T) {
		o := m.options()
		o.Listen = func() (Events, error) { return nil, errors.New("no netlink here") }
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_, err := Wait(ctx, spec(t, "LABEL=mine"), o)
		if !errors.Is(err, context.DeadlineExceeded) || fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "LABEL=mine: there are vda") {
			t.Errorf("%v", err)
		}
	})
}

func TestListenerHearsNothingFromNobody(t *testing.T) {
	l, err := Listen()
	if err != nil {
		t.Skipf("no netlink for the kernel's events here: %v", err)
	}
	defer l.Close()
	for range 2 {
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stopped")
		time.AfterFunc(10*time.Millisecond, func() { cancel(stop) })
		for {
			// Others make devices meanwhile, perhaps more than are listened to in time.
			if _, err = l.Next(ctx); err != nil && !errors.Is(err, ErrLost) {
				break
			}
		}
		if !errors.Is(err, stop) {
			t.Errorf("%v", err)
		}
	}
}

func TestParseEvent(t *testing.T) {
	e, err := parseEvent([]byte("add@/devices/pci0/vda\x00ACTION=add\x00SUBSYSTEM=block\x00DEVNAME=vda\x00"))
	want := Event{Action: "add", DevPath: "/devices/pci0/vda", Subsystem: "block", Env: map[string]string{"ACTION": "add", "SUBSYSTEM": "block", "DEVNAME": "vda"}}
	if diff := cmp.Diff(want, e); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, bad := range []string{"", "libudev\x00\xfe\xed", "@/x", "add@x"} {
		if _, err := parseEvent([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzEvent(f *testing.F) {
	f.Add([]byte("add@/devices/x\x00SUBSYSTEM=block\x00=\x00A"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = parseEvent(b) })
}

// TestBlockSizes: whoever lets an ext4 grow must count as it does.
func TestBlockSizes(t *testing.T) {
	for log, want := range []int64{1024, 2048, 4096, 8192} {
		d := ext4("x")
		binary.LittleEndian.PutUint32(d[extOffset+extLogBlockSize:], uint32(log))
		if s, err := Probe(bytes.NewReader(d)); err != nil || s.BlockSize != want || s.Size != 512*want {
			t.Errorf("2^%d KiB: %+v, %v", log, s, err)
		}
	}
}

func FuzzProbe(f *testing.F) {
	for _, d := range [][]byte{ext4("x"), xfs("x"), btrfs("x")} {
		f.Add(d[:btrfsOffset+btrfsSize])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Probe(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if s.Size < 0 || s.Type == "" && s != (Superblock{}) {
			t.Errorf("%+v", s)
		}
	})
}

func FuzzTable(f *testing.F) {
	f.Add(gpt("x")[:20<<10], uint16(512))
	f.Fuzz(func(t *testing.T, b []byte, sector uint16) { _, _ = readTable(bytes.NewReader(b), int64(sector)) })
}

func FuzzSpec(f *testing.F) {
	f.Add("LABEL=x")
	f.Fuzz(func(t *testing.T, s string) {
		parsed, err := ParseSpec(s)
		if err != nil {
			return
		}
		again, err := ParseSpec(parsed.String())
		if err != nil || again.String() != parsed.String() {
			t.Errorf("%q, %q: %v", parsed, again, err)
		}
	})
}

// TestListenerHearsTheKernel has the kernel repeat an event (Documentation/ABI/testing/sysfs-uevent).
func TestListenerHearsTheKernel(t *testing.T) {
	l, err := Listen()
	if err != nil {
		t.Skipf("no netlink for the kernel's events here: %v", err)
	}
	const null = "/sys/class/mem/null/uevent"
	if err := os.WriteFile(null, []byte("change"), 0); err != nil {
		l.Close()
		t.Skipf("the kernel can't be asked for an event: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	e, err := l.Next(ctx)
	for err == nil && e.DevPath != "/devices/virtual/mem/null" || errors.Is(err, ErrLost) { // the machine's other events
		if err != nil {
			// So many that this one may be lost.
			if err = os.WriteFile(null, []byte("change"), 0); err != nil {
				break
			}
		}
		e, err = l.Next(ctx)
	}
	if ctx.Err() != nil {
		l.Close()
		t.Skip("the kernel's events don't reach this network namespace")
	}
	if err != nil || e.Action != "change" || e.Subsystem != "mem" || e.Env["DEVNAME"] != "null" {
		t.Errorf("%+v, %v", e, err)
	}
	appeared := l.Modaliases(t.Context())
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for range appeared {
	}
}
