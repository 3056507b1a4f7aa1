package volume

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// image returns a volume of testdata.
func image(t testing.TB, name string) []byte {
	t.Helper()
	packed, err := os.ReadFile(filepath.Join("testdata", name+".zst"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	plain, err := d.DecodeAll(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

const (
	uuid  = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
	token = "hXk2-Zz_9QpLm0aBcDeFgHiJkLmNoPqRsTuVwXyZ012"
)

func TestMedia(t *testing.T) {
	const long = "a-file-with-a-longer-name.txt"
	for _, c := range []struct {
		file, label string
		sizes       map[string]int // -1 is a file that isn't there
	}{
		{"fat12.img", "cidata", map[string]int{"user-data": 172, "meta-data": 17, "identity.cfg": 113, long: 9001, "none": -1}},
		{"fat16.img", "CIDATA", map[string]int{"user-data": 172, "identity.cfg": 113, long: 9001, "IDENTITY.CFG": 113}},
		{"fat32.img", "BOOT", map[string]int{"identity.cfg": 113, "user-data": 172, long: 9001, "A-FILE~1.TXT": 9001}},
		{"joliet.iso", "cidata", map[string]int{"user-data": 172, "meta-data": 17, "identity.cfg": 113, "none": -1}},
		{"rock.iso", "CIDATA", map[string]int{"user-data": 172, "meta-data": 17}},
		{"onlyjoliet.iso", "cidata", map[string]int{"user-data": 172, "meta-data": 17}},
	} {
		m, err := openMedium(bytes.NewReader(image(t, c.file)), nil)
		if err != nil {
			t.Errorf("%s: %v", c.file, err)
			continue
		}
		if m.label != c.label {
			t.Errorf("%s: label %q", c.file, m.label)
		}
		for name, size := range c.sizes {
			b, err := m.readFile(name, 1<<20)
			switch {
			case size < 0 && !errors.Is(err, fs.ErrNotExist):
				t.Errorf("%s: %s: %v", c.file, name, err)
			case size >= 0 && (err != nil || len(b) != size):
				t.Errorf("%s: %s has %d bytes, %v", c.file, name, len(b), err)
			case size == 9001 && strings.Trim(string(b), "x") != "\n":
				t.Errorf("%s: %s: other bytes", c.file, name)
			}
		}
		if _, err := m.readFile("user-data", 50); err == nil || !strings.Contains(err.Error(), "longer than 50") {
			t.Errorf("%s: a file beyond the limit: %v", c.file, err)
		}
	}
}

// TestDamagedMedia has volumes that never end, or lead nowhere.
func TestDamagedMedia(t *testing.T) {
	le := binary.LittleEndian
	for _, c := range []struct {
		name, file string
		damage     func(b []byte)
		err        string
	}{
		{"a chain in a circle", "fat12.img", func(b []byte) {
			f, err := openFAT(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			for c := uint32(2); c < 400; c++ { // each cluster is followed by itself
				at := f.table + int64(c)*3/2
				v := uint16(c)
				if c&1 != 0 {
					v = v<<4 | uint16(b[at]&0xf)
				} else {
					v |= uint16(b[at+1]&0xf0) << 8
				}
				le.PutUint16(b[at:], v)
			}
			// and the file has four gigabytes
			at := bytes.Index(b, []byte("USER-D~1   "))
			le.PutUint32(b[at+28:], 0xffffffff)
		}, "longer than"},
		{"a chain that leads nowhere", "fat16.img", func(b []byte) {
			f, err := openFAT(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			for c := int64(2); c < 64; c++ {
				le.PutUint16(b[f.table+2*c:], 1)
			}
		}, "leads nowhere"},
		{"a root directory that begins nowhere", "fat32.img", func(b []byte) { le.PutUint32(b[44:], 0x0ffffff0) }, "begins nowhere"},
		{"a table that is too short", "fat32.img", func(b []byte) { le.PutUint32(b[36:], 0) }, "neither"},
		{"clusters of no size", "fat12.img", func(b []byte) { b[13] = 0 }, "neither"},
		{"a root directory in a circle", "fat32.img", func(b []byte) {
			f, err := openFAT(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			le.PutUint32(b[f.table+4*int64(f.rootCluster):], f.rootCluster)
		}, ""},
		{"a directory of odd records", "rock.iso", func(b []byte) {
			at := int64(le.Uint32(b[16*2048+156+2:])) * 2048
			b[at+int64(b[at])] = 5
		}, "damaged"},
		{"an extent beyond the end", "onlyjoliet.iso", func(b []byte) {
			at := bytes.Index(b, []byte("\x00u\x00s\x00e\x00r\x00-\x00d\x00a\x00t\x00a"))
			le.PutUint32(b[at-33+2:], 0xfffffff0)
		}, "ends early"},
		{"no root directory", "joliet.iso", func(b []byte) { le.PutUint32(b[16*2048+156+2:], 0xfffffff0) }, "root directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := image(t, c.file)
			c.damage(b)
			m, err := openMedium(bytes.NewReader(b), nil)
			if err == nil {
				for _, e := range m.entries {
					for _, n := range e.names {
						if _, readErr := m.readFile(n, 64<<10); n != "" && readErr != nil {
							err = readErr
						}
					}
				}
			}
			if (c.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v, want %q", err, c.err)
			}
		})
	}
}

// endless is a device that answers everything with the same bytes.
type endless struct{ head []byte }

func (e endless) ReadAt(p []byte, at int64) (int, error) {
	for i := range p {
		p[i] = e.head[(at+int64(i))%int64(len(e.head))]
	}
	return len(p), nil
}

func TestEndlessMedium(t *testing.T) {
	for _, name := range []string{"fat12.img", "fat32.img", "joliet.iso"} {
		if m, err := openMedium(endless{image(t, name)[:256<<10]}, nil); err == nil {
			_, _ = m.readFile("user-data", 64<<10)
		}
	}
}

// sparse makes a medium of a fuzzer's bytes: the first 4 KiB, and what lies from block 16 on.
func sparse(b []byte) []byte {
	out := make([]byte, 256<<10)
	n := copy(out, b[:min(len(b), 4<<10)])
	copy(out[16*2048:], b[n:])
	return out
}

func FuzzMedium(f *testing.F) {
	for _, name := range []string{"fat12.img", "fat16.img", "fat32.img", "joliet.iso", "rock.iso", "onlyjoliet.iso"} {
		b := image(f, name)
		f.Add(append(append([]byte{}, b[:4<<10]...), b[16*2048:min(len(b), 48*2048)]...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, sparse(b)} {
			m, err := openMedium(bytes.NewReader(b), nil)
			if err != nil {
				continue
			}
			for _, e := range m.entries {
				for _, n := range e.names {
					if content, err := m.readFile(n, 8<<10); err == nil && len(content) > 8<<10 {
						t.Fatalf("%d bytes", len(content))
					}
				}
			}
		}
	})
}
