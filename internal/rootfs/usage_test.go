package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestGrade(t *testing.T) {
	bytes := func(percent uint64) Usage {
		return Usage{UsedBytes: percent, TotalBytes: 100, UsedFiles: 1, TotalFiles: 1000}
	}
	for name, c := range map[string]struct {
		last Fullness
		u    Usage
		want Fullness
	}{
		"empty":                         {"", bytes(0), Roomy},
		"just below":                    {Roomy, bytes(79), Roomy},
		"filling":                       {Roomy, bytes(80), Filling},
		"full":                          {"", bytes(90), Full},
		"from filling to full":          {Filling, bytes(90), Full},
		"filling goes down a little":    {Filling, bytes(78), Filling},
		"filling goes down":             {Filling, bytes(76), Roomy},
		"full goes down a little":       {Full, bytes(88), Full},
		"full goes down":                {Full, bytes(86), Filling},
		"full is emptied":               {Full, bytes(10), Roomy},
		"files run out":                 {Roomy, Usage{UsedBytes: 1, TotalBytes: 100, UsedFiles: 95, TotalFiles: 100}, Full},
		"no limit of files":             {Roomy, Usage{UsedBytes: 1, TotalBytes: 100, UsedFiles: 95}, Roomy},
		"no size at all":                {Roomy, Usage{}, Roomy},
		"more used than there is":       {Roomy, Usage{UsedBytes: 2, TotalBytes: 1}, Full},
		"a few bytes are left of a lot": {Roomy, Usage{UsedBytes: 1<<40 - 1, TotalBytes: 1 << 40}, Full},
	} {
		got := c.last.Grade(c.u)
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if text, hint := got.Warning(c.u, InMemory); (text == "") != (got == Roomy) || (hint == "") != (text == "") {
			t.Errorf("%s: warning %q, %q", name, text, hint)
		}
	}
}

func TestWarningNamesTheRemedy(t *testing.T) {
	u := Usage{UsedBytes: 95, TotalBytes: 100}
	if _, hint := Full.Warning(u, OnPersist); !strings.Contains(hint, "disk") {
		t.Errorf("a layer on the disk: %q", hint)
	}
	if text, hint := Filling.Warning(u, InMemory); !strings.Contains(hint, "upper_size") || !strings.Contains(text, "95 %") {
		t.Errorf("a layer in memory: %q, %q", text, hint)
	}
}

// TestRoomInMemory: a layer in memory is as full as the machine's memory lets it become.
func TestRoomInMemory(t *testing.T) {
	u := Usage{UsedBytes: 200, TotalBytes: 1000}
	for name, c := range map[string]struct {
		kind      UpperKind
		memory    Memory
		available uint64
		percent   int
		fullness  Fullness
		text      string
	}{
		"memory enough":         {InMemory, Memory{Available: 5000}, 800, 20, Roomy, ""},
		"memory is short":       {InMemory, Memory{Available: 40}, 40, 84, Filling, "84 % full: it lies in memory"},
		"memory is out":         {InMemory, Memory{Available: 2}, 2, 100, Full, "100 % full: it lies in memory"},
		"there is swap":         {InMemory, Memory{Available: 2, swapFree: 700}, 702, 23, Roomy, ""},
		"unknown memory":        {InMemory, Memory{}, 800, 20, Roomy, ""},
		"a disk needs none":     {OnPersist, Memory{Available: 2}, 800, 20, Roomy, ""},
		"unknown kind of layer": {"", Memory{Available: 2}, 800, 20, Roomy, ""},
	} {
		r := roomOf(u, c.kind, c.memory, "")
		if r.AvailableBytes != c.available || r.Percent != c.percent || r.Fullness != c.fullness || r.TotalBytes != 1000 {
			t.Errorf("%s: %+v", name, r)
		}
		if text, hint := r.Warning(); !strings.Contains(text, c.text) || (text == "") != (c.text == "") || (hint == "") != (text == "") {
			t.Errorf("%s: %q, %q", name, text, hint)
		}
	}
	if text, hint := roomOf(Usage{UsedBytes: 95, TotalBytes: 100}, InMemory, Memory{Available: 5000}, "").Warning(); strings.Contains(text, "memory") || !strings.Contains(hint, "upper_size") {
		t.Errorf("a small layer: %q, %q", text, hint)
	}
}

// TestFillingUp fills a small writable layer: it is reported before a write fails.
func TestFillingUp(t *testing.T) {
	n := newNode(t)
	r := n.boot(n.image(map[string]string{"usr/file": "x"}), func(s *Spec) { s.Upper.Size = "4m" })
	defer r.shutDown()
	var grade Fullness
	var told []Fullness
	for i := 0; ; i++ {
		room, err := RoomOf(r.at, InMemory, grade)
		must(t, err)
		if room.TotalBytes != 4<<20 || room.Percent != room.Usage.Percent() {
			t.Fatalf("%+v", room)
		}
		if room.Fullness != grade {
			grade = room.Fullness
			told = append(told, grade)
		}
		if err := os.WriteFile(r.in("usr/"+strconv.Itoa(i)), make([]byte, 64<<10), 0o644); err != nil {
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			break
		}
	}
	if len(told) != 3 || told[0] != Roomy || told[1] != Filling || told[2] != Full {
		t.Errorf("told %q before a write failed", told)
	}
	if _, err := RoomOf(filepath.Join(r.at, "none"), InMemory, ""); err == nil {
		t.Error("the usage of nothing")
	}
}

func TestReadMemory(t *testing.T) {
	m, err := ReadMemory()
	must(t, err)
	if m.Total < m.Available || m.Available <= 0 || m.Peak < m.Resident || m.Resident <= 0 {
		t.Errorf("%+v", m)
	}
}

func TestParseKilobytes(t *testing.T) {
	for text, want := range map[string]int64{
		"A:  3 kB\nB: 1 kB\n": 3072, "B: 1 kB\n": 0, "A: 3\n": 0, "A: x kB\n": -1, "A: -1 kB\n": -1, "A: 99999999999999999 kB": -1, "": 0,
		strings.Repeat("x", 1<<17): -1,
	} {
		var a int64
		err := parseKilobytes(strings.NewReader(text), map[string]*int64{"A": &a})
		if (err != nil) != (want < 0) || err == nil && a != want {
			t.Errorf("%.20q: %d, %v", text, a, err)
		}
	}
}

func FuzzParseKilobytes(f *testing.F) {
	f.Add("MemTotal:       123 kB\nMemAvailable: 4 kB\n")
	f.Fuzz(func(t *testing.T, text string) {
		var a int64
		if err := parseKilobytes(strings.NewReader(text), map[string]*int64{"MemTotal": &a}); err == nil && a < 0 {
			t.Fatal(a)
		}
	})
}
