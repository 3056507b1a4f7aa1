package vm

import (
	"bytes"
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/test/lab"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// stateDir is the directory of record on a persist disk.
var stateDir = boot.StateDir("/")

// object is where the disk keeps the content with this digest.
func object(d fsverity.Digest) string { return filepath.Join(stateDir, "objects", d.ObjectPath()) }

// contentObject is where the disk keeps this content.
func contentObject(text string) string { return object(fsverity.SumBytes([]byte(text))) }

// digest reads one that a document of the agent has.
func digest(t testing.TB, text string) fsverity.Digest {
	t.Helper()
	d, err := fsverity.ParseDigest(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// runs checks what runs: this generation, enforced, with the page of this version, whole.
func (s *system) runs(generation uint64, version string) statusDoc {
	s.n.t.Helper()
	doc := s.status()
	if got := s.journal().Generation; got != generation || doc.Level != "enforced" {
		s.n.t.Errorf("generation %d runs at level %q, want %d enforced; reasons %q", got, doc.Level, generation, doc.Reasons)
	}
	if got := s.Do(qemu.Request{Op: "read", Args: []string{page}}); got.Stdout != pageText(version) || got.Error != "" {
		s.n.t.Errorf("the page isn't that of version %s: %d bytes, %.80q, %s", version, len(got.Stdout), got.Stdout, got.Error)
	}
	return doc
}

// says checks that the remarks of the boot, on the console too, have one with all of these words.
func (s *system) says(words ...string) {
	s.n.t.Helper()
	holds := func(line string) bool {
		for _, word := range words {
			if !strings.Contains(line, word) {
				return false
			}
		}
		return true
	}
	remarks := s.journal().Remarks
	found := false
	for _, r := range remarks {
		found = found || holds(r)
	}
	if !found {
		s.n.t.Errorf("no remark says %q: %q", words, remarks)
	}
	found = false
	for line := range strings.Lines(s.Console()) {
		found = found || holds(line)
	}
	if !found {
		s.n.t.Errorf("the console doesn't say %q", words)
	}
}

// service runs the agent's service inside until the condition holds.
func (s *system) service(what string, until func() bool) {
	s.n.t.Helper()
	if a := s.Do(qemu.Request{Op: "start", Args: []string{"service", boot.AgentPath, "service", "--reconcile=off"}}); a.Error != "" {
		s.n.t.Fatal(a.Error)
	}
	for deadline := time.Now().Add(qemu.Patience); !until(); time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			s.n.t.Fatalf("in vain waited until %s:\n%s", what, s.Read("/run/service.log"))
		}
	}
	if a := s.Do(qemu.Request{Op: "stop", Args: []string{"service"}}); a.Code != 0 || a.Error != "" {
		s.n.t.Errorf("the service ends with %d %s:\n%s", a.Code, a.Error, a.Stderr)
	}
}

// TestFlippedBit: a bit that is wrong on the disk is an error of the read, not a wrong content; status
// names file and module; and the running service fetches the object again.
func TestFlippedBit(t *testing.T) {
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("flipped", "base", "app")
	s := n.boot()
	s.Do(qemu.Request{Op: "drop-caches"})
	// The machine runs: the byte is changed behind its back, as a failing disk does.
	qemu.FlipByteBeneath(t, n.disk, contentObject(pageText("1")), 20000)
	if got := s.ReadError(page); !strings.Contains(got, "input/output error") {
		t.Errorf("reading a damaged file: %q", got)
	}
	if r := s.agent("status"); r.Code != 2 || !strings.Contains(r.Stdout, page) || !strings.Contains(r.Stdout, "app 1") {
		t.Errorf("status: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	s.service("the file can be read", func() bool { return s.ReadError(page) == "" })
	s.runs(1, "1")
	if r := s.agent("status", "--check"); strings.Contains(r.Stdout, "damaged: ") || r.Code == 2 {
		t.Errorf("status --check: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	s.PowerOff()
	qemu.Check(t, n.disk)
}

// TestDamagedStore: what was changed in the store while the machine was off is found in the boot, said,
// and mended.
func TestDamagedStore(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	a := p.Publish(app("1"))
	n := p.node("store", "base", "app")
	s := n.boot()
	s.good()
	root := digest(t, s.status().RootDigest)
	s.PowerOff()
	seal := digest(t, a.Images[0].Seal)

	flip := func(what string) func() {
		return func() { qemu.FlipByte(t, n.disk, what, 1500) }
	}
	put := func(what, content string) func() {
		return func() {
			qemu.Edit(t, n.disk, func(dir string) { lab.Write(t, filepath.Join(dir, what), []byte(content), 0o400) })
		}
	}
	evil := strings.Repeat("evil ", 10000)
	for _, c := range []struct {
		name   string
		damage func()
		says   []string
	}{
		// Without fs-verity, as whoever has the disk can do it.
		{"a swapped object", put(contentObject(pageText("1")), evil), []string{"app 1", "holds the bytes of", "fetched again"}},
		{"an object without fs-verity", put(contentObject(pageText("1")), pageText("1")), nil},
		{"an object that is gone", func() {
			qemu.Edit(t, n.disk, func(dir string) {
				if err := os.Remove(filepath.Join(dir, contentObject(pageText("1")))); err != nil {
					t.Error(err)
				}
			})
		}, nil},
		{"another root image", func() {
			qemu.Edit(t, n.disk, func(dir string) {
				err := os.Remove(filepath.Join(dir, object(root)))
				if err == nil {
					err = os.Link(filepath.Join(dir, object(seal)), filepath.Join(dir, object(root)))
				}
				if err != nil {
					t.Error(err)
				}
			})
		}, []string{"root image", "was damaged", "made anew"}},
		{"rubbish as root image", put(object(root), evil), []string{"root image", "was damaged", "made anew"}},
		{"a flipped bit in the root image", flip(object(root)), []string{"root image", "was damaged", "made anew"}},
		{"a flipped bit in a module image", flip(object(seal)), []string{"app 1", "fetched again"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.damage()
			s := n.on(t).boot()
			if c.says != nil {
				s.says(c.says...)
			}
			if doc := s.runs(1, "1"); !doc.InStep {
				t.Errorf("out of step: %q", doc.Reasons)
			}
			s.agent("status", "--check").OK(t)
			s.PowerOff()
		})
	}

	t.Run("without the platform", func(t *testing.T) {
		put(contentObject(pageText("1")), evil)()
		n := n.on(t)
		n.machine.Network = false
		s := n.start()
		s.WaitLine(`This machine can't boot: .*app 1`)
		s.WaitLine(`What to do: `)
		s.Kill()
		n.machine.Network = true
		s = n.boot()
		s.says("app 1", "fetched again")
		s.runs(1, "1")
		s.PowerOff()
	})
}

// TestDamagedInit: a bit that is wrong in what the system needs to start, on a machine with nothing to go
// back to. Whether the boot finds it or the system dies of it, the machine mends itself.
func TestDamagedInit(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("init", "base", "app")
	s := n.boot()
	s.good()
	s.PowerOff()
	init := lab.Read(t, lab.Program("init"))
	program, err := elf.NewFile(bytes.NewReader(init))
	if err != nil {
		t.Fatal(err)
	}
	text := program.Section(".text")
	for name, offset := range map[string]int64{
		"its header":      100,
		"its first words": int64(program.Entry - text.Addr + text.Offset),
	} {
		t.Run(name, func(t *testing.T) {
			n := n.on(t)
			qemu.FlipByte(t, n.disk, contentObject(string(init)), offset)
			s := n.boot()
			s.says("base 1", "fetched again")
			if doc := s.runs(1, "1"); !doc.InStep {
				t.Errorf("out of step: %q", doc.Reasons)
			}
			s.agent("status", "--check").OK(t)
			s.service("it is known to be good", func() bool { return s.ReadError("/run/powernode/good-1") == "" })
			s.PowerOff()
		})
	}
}

// on returns the node as another test's, for its messages.
func (n *node) on(t testing.TB) *node {
	c := *n
	c.t = t
	return &c
}

// truncate cuts a file of the directory of record to nothing, as a file system does that lost its end.
func (n *node) truncate(name string) {
	n.t.Helper()
	qemu.Edit(n.t, n.disk, func(dir string) {
		if err := os.Truncate(filepath.Join(dir, stateDir, name), 0); err != nil {
			n.t.Error(err)
		}
	})
}

// TestTruncatedPointers: a pointer that says nothing leaves the node with a generation that was good.
func TestTruncatedPointers(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("pointers", "base", "app")
	s := n.boot()
	s.good()
	s.PowerOff()

	t.Run("current, without the platform", func(t *testing.T) {
		n := n.on(t)
		n.truncate("generations/current")
		n.machine.Network = false
		s := n.boot()
		s.says("current")
		if doc := s.runs(1, "1"); doc.InStep {
			t.Error("status says nothing of the pointer")
		}
		s.PowerOff()
	})
	t.Run("current", func(t *testing.T) {
		s := n.on(t).boot()
		s.says("current")
		s.good()
		if doc := s.runs(1, "1"); !doc.InStep {
			t.Errorf("out of step: %q", doc.Reasons)
		}
		s.PowerOff()
		qemu.Edit(t, n.disk, func(dir string) {
			if got := strings.TrimSpace(string(lab.Read(t, filepath.Join(dir, stateDir, "generations/current")))); got != "1" {
				t.Errorf("current is %q", got)
			}
		})
	})
	t.Run("staged", func(t *testing.T) {
		p.Publish(app("2"))
		n := n.on(t)
		s := n.boot()
		s.runs(2, "2")
		s.Kill()
		n.truncate("generations/staged")
		n.machine.Network = false
		s = n.boot()
		s.says("staged")
		s.runs(1, "1")
		s.PowerOff()
		n.machine.Network = true
		s = n.boot()
		s.good()
		if doc := s.runs(2, "2"); !doc.InStep {
			t.Errorf("out of step: %q", doc.Reasons)
		}
		s.PowerOff()
	})
	t.Run("the store's format, without the platform", func(t *testing.T) {
		n := n.on(t)
		n.truncate("store.json")
		n.machine.Network = false
		s := n.boot()
		s.says("store.json")
		s.runs(2, "2")
		s.PowerOff()
		n.machine.Network = true
	})
	t.Run("all records of generations", func(t *testing.T) {
		n := n.on(t)
		qemu.Edit(t, n.disk, func(dir string) {
			if err := os.RemoveAll(filepath.Join(dir, stateDir, "generations")); err != nil {
				t.Error(err)
			}
		})
		s := n.boot()
		s.good()
		s.runs(1, "2")
		s.PowerOff()
	})
}
