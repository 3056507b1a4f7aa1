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
}

func newMounted(t *testing.T) *mounted {
	t.Helper()
	mounttest.NeedMounts(t)
	dir := t.TempDir()
	m := &mounted{T: t, dir: dir, run: filepath.Join(dir, "run"), root: filepath.Join(dir, "run/root")}
	m.must(os.MkdirAll(m.run, 0o755))
	m.must(unix.Mount("tmpfs", m.run, "tmpfs", 0, "mode=755"))
	t.Cleanup(func() {
		table, err := mount.ReadTable()
		for _, e := range slices.Backward(table) {
			if strings.HasPrefix(e.Point, m.run) {
				_ = unix.Unmount(e.Point, unix.MNT_DETACH)
			}
		}
		m.must(err)
	})
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
		At: m.root, Scratch: m.run, Store: m.store, RootDigest: g.RootDigest, Level: m.level, Persist: filepath.Join(m.dir, "persist"), Etc: etc,
		Upper: rootfs.Upper{Size: "64m"}, Remark: func(text, _ string) { m.Errorf("boot: %s", text) },
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
