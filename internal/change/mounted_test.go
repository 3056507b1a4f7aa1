package change

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

func TestMain(m *testing.M) { os.Exit(mounttest.Main(m)) }

// mounted is a system with a root that is mounted indeed.
type mounted struct {
	*testing.T
	store     *store.Store
	level     mount.Level
	dir, root string
	run       string
	upper     rootfs.Upper
}

func newMounted(t *testing.T) *mounted {
	t.Helper()
	mounttest.NeedMounts(t)
	dir := t.TempDir()
	m := &mounted{T: t, dir: dir, run: filepath.Join(dir, "run"), root: filepath.Join(dir, "run/root"), upper: rootfs.Upper{Size: "64m"}}
	m.must(os.MkdirAll(m.run, 0o755))
	m.must(unix.Mount("tmpfs", m.run, "tmpfs", 0, "mode=755"))
	t.Cleanup(func() { m.unmount(m.run) })
	var err error
	m.store, err = store.Open(filepath.Join(dir, "persist/state"), store.Options{})
	m.must(err)
	t.Cleanup(func() { m.store.Close() })
	abilities, err := mount.Probe(m.store.ObjectsPath())
	m.must(err)
	if !abilities.Beneath.OK {
		oracle.Missing(t, "this kernel can't put mounts beneath others: "+abilities.Beneath.Reason)
	}
	m.level, err = mount.Decide(abilities, mount.Checked)
	m.must(err)
	return m
}

// unmount takes away what is mounted at a path and below it.
func (m *mounted) unmount(path string) {
	m.Helper()
	table, err := mount.ReadTable()
	m.must(err)
	for _, e := range slices.Backward(table) {
		if e.Point == path || strings.HasPrefix(e.Point, path+"/") {
			_ = unix.Unmount(e.Point, unix.MNT_DETACH)
		}
	}
}

// reboot is what a power cut leaves, and the boot of a generation.
func (m *mounted) reboot(g store.Generation) {
	m.Helper()
	m.unmount(m.run)
	m.must(unix.Mount("tmpfs", m.run, "tmpfs", 0, "mode=755"))
	m.boot(g, rootfs.Ephemeral)
}

func (m *mounted) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// generation stores a root of files and the modes of directories.
func (m *mounted) generation(files map[string]string, modes map[string]uint16) store.Generation {
	m.Helper()
	root, objects := tree.NewDir(0o755), []fsverity.Digest(nil)
	put := func(path, text string) {
		dir := root
		parts := strings.Split(path, "/")
		for _, p := range parts[:len(parts)-1] {
			if dir.Child(p) == nil {
				dir.SetChild(p, tree.NewDir(0o755))
			}
			dir = dir.Child(p)
		}
		n := &tree.Node{Kind: tree.Regular, Mode: 0o755, Size: uint64(len(text)), Mtime: tree.Time{Sec: 1}}
		object := filepath.Join(m.TempDir(), "object")
		m.must(os.WriteFile(object, []byte(text), 0o600))
		f, err := os.Open(object)
		m.must(err)
		defer f.Close()
		n.Digest, _, err = m.store.AddFile(f)
		m.must(err)
		objects = append(objects, n.Digest)
		dir.SetChild(parts[len(parts)-1], n)
	}
	put("sbin/init", initProgram())
	for path, text := range files {
		put(path, text)
	}
	for path, mode := range modes {
		root.Lookup(path).Mode = mode
	}
	data, digest, err := composefs.Build(root, composefs.V1)
	m.must(err)
	g := store.Generation{RootDigest: digest, Cause: "test", Level: string(m.level), Created: time.Unix(1, 0).UTC()}
	g.Number, err = m.store.PutGeneration(g, bytes.NewReader(data))
	m.must(err)
	if m.level == mount.Enforced {
		m.must(m.store.EnableVerity(context.Background(), append(objects, digest)))
	}
	return g
}

// initProgram is a static program for this machine, as far as its headers say.
func initProgram() string {
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "riscv64": elf.EM_RISCV}[runtime.GOARCH]
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Phoff: 64, Phentsize: 56, Phnum: 1}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, h)
	_ = binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_LOAD)})
	return b.String()
}

// boot makes the root of a generation.
func (m *mounted) boot(g store.Generation, etc rootfs.Etc) {
	m.Helper()
	_, err := rootfs.Make(m.Context(), rootfs.Spec{
		At: m.root, Scratch: m.run, Store: m.store, RootDigest: g.RootDigest, Current: true, Level: m.level, Persist: filepath.Join(m.dir, "persist"), Etc: etc,
		Upper: m.upper, Remark: func(text, _ string) { m.Errorf("boot: %s", text) },
	})
	m.must(err)
	m.must(unix.Mount("", m.root, "", unix.MS_SHARED|unix.MS_REC, ""))
}

func (m *mounted) machine() *Machine {
	return &Machine{Place: live.Place{Root: m.root, RunDir: m.run, Images: m.store}}
}

func (m *mounted) step(from, to store.Generation) Step {
	m.Helper()
	a, err := ReadTree(m.store, from.RootDigest)
	m.must(err)
	b, err := ReadTree(m.store, to.RootDigest)
	m.must(err)
	return Step{From: from, To: to, FromTree: a, ToTree: b, Difference: difference.Compare(a, b)}
}

func (m *mounted) in(path string) string { return filepath.Join(m.root, path) }

func (m *mounted) reads(path, want string) {
	m.Helper()
	if got, err := os.ReadFile(m.in(path)); err != nil || string(got) != want {
		m.Errorf("%s reads %.30q (%d bytes), %v; want %.30q", path, got, len(got), err, want)
	}
}

func (m *mounted) mode(path string, want os.FileMode) {
	m.Helper()
	if info, err := os.Stat(m.in(path)); err != nil || info.Mode().Perm() != want {
		m.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
	}
}

// TestChangesOverARootThatIsTakenBack: what was changed over the new root means the same over the old one, whoever goes back.
func TestChangesOverARootThatIsTakenBack(t *testing.T) {
	for _, how := range []string{"undone", "killed, and recovered", "killed half-way, and recovered"} {
		t.Run(how, func(t *testing.T) {
			m := newMounted(t)
			old := m.generation(map[string]string{"usr/app": long("1"), "opt/same": long("s"), "opt/app": long("1"), "opt/dir/f": long("f")}, nil)
			next := m.generation(map[string]string{"usr/app": long("2"), "usr/only/here": long("only"), "opt/same": long("s"), "opt/app": long("2")}, nil)
			m.boot(old, rootfs.Ephemeral)
			machine, s := m.machine(), m.step(old, next)
			if how == "killed half-way, and recovered" {
				// What is made anew in a place that only the old root has isn't to show what that has there.
				m.must(errors.Join(os.RemoveAll(m.in("opt/dir")), os.Mkdir(m.in("opt/dir"), 0o755)))
			}
			_, err := machine.Swap(t.Context(), s, Findings{})
			m.must(err)
			m.must(errors.Join(os.Rename(m.in("usr/only"), m.in("usr/kept")), os.Chmod(m.in("usr/app"), 0o600)))
			switch how {
			case "undone":
				_, err = machine.Undo(t.Context(), s, Findings{})
				m.must(err)
			case "killed half-way, and recovered":
				// As if /opt hadn't come to its turn.
				m.must(unix.Unmount(m.in("opt"), unix.MNT_DETACH))
				fallthrough
			default:
				r, ok, err := m.machine().Recover(t.Context(), old.Number)
				if err != nil || !ok || r.Forward || r.Generation != old.Number || len(r.Remarks) > 0 {
					t.Fatalf("%+v, %t, %v", r, ok, err)
				}
			}
			m.reads("usr/kept/here", long("only"))
			m.reads("usr/app", long("2"))
			m.mode("usr/app", 0o600)
			m.reads("opt/app", long("1"))
			m.reads("opt/same", long("s"))
			if how == "killed half-way, and recovered" {
				upper, err := live.OpenUpper(m.machine().Place)
				m.must(err)
				defer upper.Close()
				if _, err := unix.Getxattr(filepath.Join(upper.Name(), "opt/dir"), "trusted.overlay.opaque", make([]byte, 8)); err != nil {
					t.Errorf("what was removed before shows itself again: %v", err)
				}
			}
		})
	}
}

// TestCopiedUpDirectoriesFollow: a directory that is in the writable layer because of a file in it takes on the mode that the new root gives
// it, once the change is final, and is what it was when it is taken back.
func TestCopiedUpDirectoriesFollow(t *testing.T) {
	for _, etc := range []rootfs.Etc{rootfs.Ephemeral, rootfs.Persistent} {
		t.Run(string(etc), func(t *testing.T) {
			m := newMounted(t)
			files := map[string]string{"etc/x/a": long("a"), "etc/mine/a": long("a"), "usr/v": "1"}
			old := m.generation(files, nil)
			files["usr/v"] = "2"
			next := m.generation(files, map[string]uint16{"etc/x": 0o700, "etc/mine": 0o700})
			m.boot(old, etc)
			machine := func() *Machine {
				mm := m.machine()
				if etc == rootfs.Persistent {
					mm.EtcUpper = filepath.Join(m.store.Path(), "etc", "upper")
				}
				return mm
			}
			m.must(errors.Join(os.WriteFile(m.in("etc/x/secret"), []byte("mine"), 0o600), os.WriteFile(m.in("etc/mine/a"), []byte("mine"), 0o600), os.Chmod(m.in("etc/mine"), 0o711)))
			check := func(when string, x os.FileMode) {
				t.Helper()
				m.mode("etc/x", x)
				m.mode("etc/mine", 0o711)
				m.reads("etc/x/secret", "mine")
				if t.Failed() {
					t.Fatal(when)
				}
			}
			s := m.step(old, next)
			swap := func(by *Machine, s Step) {
				t.Helper()
				_, err := by.Swap(t.Context(), s, Findings{})
				m.must(err)
			}
			by := machine()
			swap(by, s)
			check("before it is final", 0o755)
			_, err := by.Undo(t.Context(), s, Findings{})
			m.must(err)
			check("undone", 0o755)
			swap(by, s)
			if remarks, err := by.Finish(t.Context()); err != nil || len(remarks) > 0 {
				t.Fatal(remarks, err)
			}
			check("finished", 0o700)
			back := m.step(next, old)
			swap(by, back)
			_, err = by.Finish(t.Context())
			m.must(err)
			check("rolled back", 0o755)
			swap(by, s)
			// It is current, and its process is killed.
			if r, ok, err := machine().Recover(t.Context(), next.Number); err != nil || !ok || !r.Forward || len(r.Remarks) > 0 {
				t.Fatalf("%+v, %t, %v", r, ok, err)
			}
			check("recovered forward", 0o700)
		})
	}
}

// died is what a step that a process dies at panics with.
type died string

// until runs do until the step of that number, at which it dies, or which fails; at is "" where it came to its end before.
func until(step int, machine *Machine, fails bool, do func() error) (at died, err error) {
	n := 0
	machine.Place.Hook = func(label string) error {
		switch n++; {
		case n == step && fails:
			at = died(label)
			return errors.New("it fails")
		case n == step:
			panic(died(label))
		}
		return nil
	}
	defer func() {
		if r := recover(); r != nil {
			var ok bool
			if at, ok = r.(died); !ok {
				panic(r)
			}
		}
	}()
	err = do()
	return at, err
}

// replacing is a root with local changes that the next one changes, too, and others.
func replacing(m *mounted) (old, next store.Generation) {
	m.Helper()
	old = m.generation(map[string]string{"etc/app/conf": long("1"), "etc/app/same": long("s"), "usr/mode": long("1"), "usr/gone": long("1"), "opt/dir/f": long("1")}, nil)
	next = m.generation(map[string]string{"etc/app/conf": long("2"), "etc/app/same": long("s"), "usr/mode": long("2"), "usr/gone": long("2"), "opt/dir/f": long("2")}, nil)
	m.boot(old, rootfs.Ephemeral)
	m.must(errors.Join(
		os.WriteFile(m.in("etc/app/conf"), []byte("mine"), 0o600), os.WriteFile(m.in("etc/app/same"), []byte("mine"), 0o600), os.WriteFile(m.in("etc/app/other"), []byte("mine"), 0o600),
		os.Chmod(m.in("usr/mode"), 0o600), os.Remove(m.in("usr/gone")), os.Rename(m.in("opt/dir"), m.in("opt/renamed")),
	))
	return old, next
}

// kept checks that all local changes are there, over the old root or the new one.
func (m *mounted) kept(v string) {
	m.Helper()
	m.reads("etc/app/conf", "mine")
	m.mode("usr/mode", 0o600)
	m.reads("usr/mode", long("1"))
	m.reads("opt/renamed/f", long("1"))
	m.same()
	for _, path := range []string{"usr/gone", "opt/dir"} {
		if _, err := os.Lstat(m.in(path)); !os.IsNotExist(err) {
			m.Errorf("%s over %s: %v", path, v, err)
		}
	}
}

// replaced checks that the new root's are there in the place of those that it changes, and all others.
func (m *mounted) replaced() {
	m.Helper()
	m.reads("etc/app/conf", long("2"))
	m.mode("usr/mode", 0o755)
	m.reads("usr/mode", long("2"))
	m.reads("usr/gone", long("2"))
	m.reads("opt/dir/f", long("2"))
	if _, err := os.Lstat(m.in("opt/renamed")); !os.IsNotExist(err) {
		m.Errorf("opt/renamed: %v", err)
	}
	m.same()
}

// same checks what no root changes.
func (m *mounted) same() {
	m.Helper()
	m.reads("etc/app/same", "mine")
	m.reads("etc/app/other", "mine")
	upper, err := live.OpenUpper(m.machine().Place)
	m.must(err)
	defer upper.Close()
	left, err := filepath.Glob(filepath.Join(filepath.Dir(upper.Name()), "dropped-*"))
	if err != nil || len(left) > 0 {
		m.Errorf("left: %v, %v", left, err)
	}
}

// TestLocalChangesAreReplaced: those that the plan names go with the change, and come back where it is taken back before it is the current one,
// whatever moment a kill comes at.
func TestLocalChangesAreReplaced(t *testing.T) {
	life := func(m *mounted, machine *Machine, s Step, f Findings) error {
		if _, err := machine.Swap(m.Context(), s, f); err != nil {
			return err
		}
		_, err := machine.Finish(m.Context())
		return err
	}
	examined := func(m *mounted, s Step) Findings {
		m.Helper()
		f, err := m.machine().Examine(m.Context(), s)
		m.must(err)
		if got := strings.Join(f.Replaced, " "); got != "/etc/app/conf /opt/dir /opt/renamed /usr/gone /usr/mode" || len(f.Obstacles) > 0 {
			m.Fatalf("would replace %s; %v", got, f.Obstacles)
		}
		return f
	}
	t.Run("kept", func(t *testing.T) {
		m := newMounted(t)
		old, next := replacing(m)
		s := m.step(old, next)
		f, err := m.machine().Examine(t.Context(), s)
		if err != nil || len(f.Conflicts) != 5 || len(f.Replaced) > 0 {
			t.Errorf("%+v, %v", f, err)
		}
		m.must(life(m, m.machine(), s, f))
		m.kept("next")
	})
	t.Run("undone", func(t *testing.T) {
		m := newMounted(t)
		old, next := replacing(m)
		s := m.step(old, next)
		s.Replace = true
		f := examined(m, s)
		machine := m.machine()
		_, err := machine.Swap(t.Context(), s, f)
		m.must(err)
		m.reads("etc/app/conf", long("2"))
		_, err = machine.Undo(t.Context(), s, f)
		m.must(err)
		m.kept("old")
		m.must(life(m, machine, s, f))
		m.replaced()
	})
	every := map[string]int{"killed": 1, "fails": 2, "power cut": 2}
	for _, how := range []string{"killed", "fails", "power cut"} {
		for step := 1; ; step += every[how] {
			ended := false
			t.Run(how, func(t *testing.T) {
				m := newMounted(t)
				if how == "power cut" {
					m.upper.Kind = rootfs.OnPersist
				}
				old, next := replacing(m)
				s := m.step(old, next)
				s.Replace = true
				f := examined(m, s)
				machine := m.machine()
				is := old
				at, err := until(step, machine, how == "fails", func() error {
					if _, err := machine.Swap(t.Context(), s, f); err != nil {
						return err
					}
					is = next
					_, err := machine.Finish(t.Context())
					return err
				})
				switch {
				case at == "":
					m.must(err)
					ended = true
				case how == "power cut":
					m.reboot(is)
				case how == "killed" || is.Number == next.Number:
					_, _, err = m.machine().Recover(t.Context(), is.Number)
					m.must(err)
				case err == nil:
					t.Log("nothing depends on it")
					is = next
				}
				if is.Number == next.Number {
					m.replaced()
				} else {
					m.kept("old")
				}
				if t.Failed() {
					t.Errorf("step %d, %s", step, at)
				}
			})
			if ended || t.Failed() {
				break
			}
		}
	}
}
