package persist

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/powernode/powernode-agent/internal/device"
)

const sector = 512

// cutDisk is a disk whose power can be cut: what was written since the last Sync may be there or
// not, sector by sector.
type cutDisk struct {
	medium  map[int64][sector]byte // by offset; what isn't there is zero
	pending map[int64][sector]byte
	cut     func(d *cutDisk, op string) // called before each operation
}

func (d *cutDisk) WriteAt(p []byte, off int64) (int, error) {
	d.cut(d, "write")
	for i := 0; i < len(p); i += sector {
		d.pending[off+int64(i)] = [sector]byte(p[i:])
	}
	return len(p), nil
}

func (d *cutDisk) Zero(off, length int64) error {
	d.cut(d, "zero")
	for at := range d.pending {
		if at >= off && at < off+length {
			delete(d.pending, at)
		}
	}
	for at := range d.medium {
		if at >= off && at < off+length {
			d.pending[at] = [sector]byte{}
		}
	}
	return nil
}

func (d *cutDisk) Sync() error {
	d.cut(d, "sync")
	for at, b := range d.pending {
		d.medium[at] = b
	}
	d.pending = map[int64][sector]byte{}
	return nil
}

// after returns the medium after a power cut at which each pending sector had a chance to be written.
func (d *cutDisk) after(chance float64, r *rand.Rand) *cutDisk {
	next := &cutDisk{medium: map[int64][sector]byte{}, pending: map[int64][sector]byte{}, cut: func(*cutDisk, string) {}}
	for at, b := range d.medium {
		next.medium[at] = b
	}
	for at, b := range d.pending {
		if r.Float64() < chance {
			next.medium[at] = b
		}
	}
	return next
}

func (d *cutDisk) ReadAt(p []byte, off int64) (int, error) {
	for i := 0; i < len(p); {
		at := off + int64(i)
		b := d.medium[at/sector*sector]
		i += copy(p[i:], b[at%sector:])
	}
	return len(p), nil
}

// check looks at a medium as the next boot does.
func check(t *testing.T, d *cutDisk, s *seed, op string) {
	t.Helper()
	was, err := readState(d)
	if err != nil {
		t.Fatal(err)
	}
	if was == untouched {
		super := make([]byte, superSize)
		if _, err := d.ReadAt(super, superOffset); err != nil {
			t.Fatal(err)
		}
		if !wholeSuper(super) {
			if empty, err := device.IsEmpty(d, 2*MinSize); err != nil || !empty {
				t.Fatalf("cut before %s: the device is neither empty, nor marked, nor complete (%v)", op, err)
			}
			return
		}
	}
	if was == unfinished {
		if ours, err := newSeed(t).only(d, 2*MinSize); err != nil || !ours {
			t.Fatalf("cut before %s: what is there isn't known as ours (%v)", op, err)
		}
		return
	}
	complete(t, d, s, op)
}

func complete(t *testing.T, d *cutDisk, s *seed, op string) {
	t.Helper()
	buf := make([]byte, 4096)
	for _, x := range s.extents {
		if x.data == nil { // what isn't on the medium is zero
			for at, b := range d.medium {
				if at >= x.offset && at < x.offset+x.length && b != [sector]byte{} {
					t.Fatalf("cut before %s: it passes for complete, but there is something at %d", op, at)
				}
			}
			continue
		}
		for at := int64(0); at < x.length; at += 4096 {
			want := x.data[at : at+4096]
			if _, err := d.ReadAt(buf, x.offset+at); err != nil {
				t.Fatal(err)
			}
			from := 0
			if x.offset+at == 0 {
				from = superOffset // the mark may be there
			}
			if !bytes.Equal(buf[from:], want[from:]) {
				t.Fatalf("cut before %s: it passes for complete, but the block at %d isn't what it should be", op, x.offset+at)
			}
		}
	}
}

func newSeed(t testing.TB) *seed {
	t.Helper()
	s, err := readSeed(packedSeed)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.identify(); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPowerCutsWhilePreparing(t *testing.T) {
	s := newSeed(t)
	r := rand.New(rand.NewPCG(1, 2))
	blank := func(cut func(*cutDisk, string)) *cutDisk {
		d := &cutDisk{medium: map[int64][sector]byte{}, pending: map[int64][sector]byte{}, cut: cut}
		// Something old where nobody looked, in the journal.
		d.medium[200<<20] = [sector]byte{1, 2, 3}
		d.medium[140<<20] = [sector]byte{4, 5, 6}
		return d
	}
	cuts := 0
	d := blank(func(d *cutDisk, op string) {
		for _, chance := range []float64{0, 0.5, 0.97, 1} {
			after := d.after(chance, r)
			check(t, after, s, op)
			if cuts++; cuts%8 == 0 { // the next boot does it again
				if was, err := readState(after); err != nil || was == untouched {
					continue
				}
				again := newSeed(t)
				if err := prepare(t.Context(), after, again, nil); err != nil {
					t.Fatal(err)
				}
				complete(t, after, again, "a second time")
			}
		}
	})
	if err := prepare(t.Context(), d, s, nil); err != nil {
		t.Fatal(err)
	}
	complete(t, d, s, "nothing")
	if was, err := readState(d); was != untouched || err != nil {
		t.Errorf("at the end: %v, %v", was, err)
	}
	t.Logf("%d cuts", cuts)
}

func TestPrepareStops(t *testing.T) {
	s := newSeed(t)
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	d := &cutDisk{medium: map[int64][sector]byte{}, pending: map[int64][sector]byte{}, cut: func(_ *cutDisk, op string) {
		if op == "zero" {
			cancel(stop)
		}
	}}
	if err := prepare(ctx, d, s, nil); !errors.Is(err, stop) {
		t.Error(err)
	}
	if was, err := readState(d); was != unfinished || err != nil {
		t.Errorf("%v, %v", was, err)
	}
}

// TestForeignAfterACut: what keeps its own superblock elsewhere leaves the mark, and isn't overwritten.
func TestForeignAfterACut(t *testing.T) {
	const size = MinSize + 1<<20
	for name, at := range map[string]int64{"nothing": -1, "mdadm 1.2, bcache": 4096, "LVM": 512, "ZFS": 16 << 10, "btrfs": 64 << 10, "mdadm 1.0": size - 8192} {
		path := filepath.Join(t.TempDir(), "disk")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(mark); err != nil {
			t.Fatal(err)
		}
		if at >= 0 {
			if _, err := f.WriteAt([]byte("a superblock"), at); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
			t.Fatal(err)
		}
		stop := errors.New("it would be written to")
		err = prepareDevice(t.Context(), path, size, func(string) error { return stop })
		if want := map[bool]error{true: errForeign, false: stop}[at >= 0]; !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStates(t *testing.T) {
	s := newSeed(t)
	block := func(change func(b []byte)) io.ReaderAt {
		b := append([]byte{}, s.extents[0].data[:4096]...)
		change(b)
		return bytes.NewReader(b)
	}
	for name, c := range map[string]struct {
		r    io.ReaderAt
		want state
	}{
		"complete":       {block(func([]byte) {}), untouched},
		"marked":         {block(func(b []byte) { copy(b, mark) }), unmarked},
		"torn":           {block(func(b []byte) { copy(b, mark); copy(b[1536:2048], make([]byte, 512)) }), unfinished},
		"only the mark":  {block(func(b []byte) { copy(b, mark); copy(b[1024:2048], make([]byte, 1024)) }), unfinished},
		"mark and more":  {block(func(b []byte) { copy(b, mark); b[511] = 0xaa }), untouched},
		"a part of mark": {block(func(b []byte) { copy(b, mark[:20]) }), untouched},
	} {
		if got, err := readState(c.r); got != c.want || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := readState(bytes.NewReader(mark)); err == nil {
		t.Error("a device of one sector")
	}
}

func FuzzState(f *testing.F) {
	f.Add(append(append([]byte{}, mark...), make([]byte, 1536)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if was, err := readState(bytes.NewReader(b)); err == nil && was != untouched && !bytes.HasPrefix(b, mark) {
			t.Errorf("%v", was)
		}
	})
}

func TestDecide(t *testing.T) {
	fs := device.Superblock{Type: "ext4"}
	big := device.Device{Exact: true, Empty: true, Size: 1 << 30}
	with := func(change func(d *device.Device)) device.Device {
		d := big
		change(&d)
		return d
	}
	for i, c := range []struct {
		allowed Prepare
		d       device.Device
		was     state
		want    string
	}{
		{Empty, big, untouched, "prepare"},
		{No, big, untouched, "refuse"},
		{"", big, untouched, "refuse"},
		{Empty, with(func(d *device.Device) { d.Exact = false }), untouched, "refuse"},
		{Empty, with(func(d *device.Device) { d.Others = []string{"/dev/vdb"} }), untouched, "refuse"},
		{No, with(func(d *device.Device) { d.Empty, d.Superblock, d.Others = false, fs, []string{"/dev/vdb"} }), untouched, "refuse"},
		{Empty, with(func(d *device.Device) { d.ReadOnly = true }), untouched, "refuse"},
		{Empty, with(func(d *device.Device) { d.Size = MinSize - 1 }), untouched, "refuse"},
		{Empty, with(func(d *device.Device) { d.Empty = false }), untouched, "refuse"},
		{Empty, with(func(d *device.Device) { d.Empty, d.Superblock = false, fs }), untouched, "mount"},
		{No, with(func(d *device.Device) { d.Empty, d.Exact, d.Superblock = false, false, fs }), untouched, "mount"},
		{Empty, with(func(d *device.Device) { d.Empty = false }), unfinished, "prepare"},
		{Empty, with(func(d *device.Device) { d.Empty, d.Superblock = false, fs }), unfinished, "prepare"}, // a torn superblock
		{No, with(func(d *device.Device) { d.Empty = false }), unfinished, "refuse"},
		{No, with(func(d *device.Device) { d.Empty, d.Superblock = false, fs }), unmarked, "unmark"},
		{No, with(func(d *device.Device) { d.Empty, d.ReadOnly, d.Superblock = false, true, fs }), unmarked, "mount"},
	} {
		p := decide(c.allowed, c.d, c.was)
		got := "mount"
		switch {
		case p.refused != "":
			got = "refuse"
			if p.hint == "" || p.prepare || p.unmark {
				t.Errorf("%d: %+v", i, p)
			}
		case p.prepare:
			got = "prepare"
		case p.unmark:
			got = "unmark"
		}
		if got != c.want {
			t.Errorf("%d: %s (%+v), want %s", i, got, p, c.want)
		}
	}
}

func TestIdentitiesDiffer(t *testing.T) {
	a, b := newSeed(t), newSeed(t)
	supers := func(s *seed) (list []string) {
		s.eachSuper(func(sb []byte) {
			list = append(list, fmt.Sprintf("%x %x", sb[sbUUID:sbUUID+16], sb[sbHashSeed:sbHashSeed+16]))
			if !wholeSuper(sb) {
				t.Error("a wrong checksum")
			}
		})
		return list
	}
	one, two := supers(a), supers(b)
	if len(one) != 2 || one[0] != one[1] || one[0] == two[0] {
		t.Errorf("%v, %v", one, two)
	}
}
