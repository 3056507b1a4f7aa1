package live

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
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// big is content that is too long to lie in an image.
var big = strings.Repeat("powernode ", 1000)

// node is a machine with a running root.
type node struct {
	testing.TB
	dir     string
	store   *store.Store
	level   mount.Level
	root    string
	run     string
	digests []fsverity.Digest // by generation, from 1 on
	trees   map[fsverity.Digest]*tree.Node
	remarks []string
}

func newNode(t testing.TB) *node {
	t.Helper()
	mounttest.NeedMounts(t)
	return nodeIn(t, t.TempDir())
}

// nodeIn is a node in a directory in which there may be one already.
func nodeIn(t testing.TB, dir string) *node {
	t.Helper()
	n := &node{TB: t, dir: dir, root: filepath.Join(dir, "run/root"), run: filepath.Join(dir, "run"), trees: make(map[fsverity.Digest]*tree.Node)}
	must(t, os.MkdirAll(n.run, 0o755))
	if _, err := mount.At(n.run); errors.Is(err, mount.ErrNotMounted) {
		m, err := mount.New("tmpfs", 0, mount.String("mode", "755"))
		must(t, err)
		must(t, m.Attach(n.run))
		m.Close()
		t.Cleanup(func() { must(t, unix.Unmount(n.run, unix.MNT_DETACH)) })
	}
	var err error
	n.store, err = store.Open(filepath.Join(dir, "persist/state"), store.Options{})
	must(t, err)
	t.Cleanup(func() { n.store.Close() })
	abilities, err := mount.Probe(n.store.ObjectsPath())
	must(t, err)
	if !abilities.Beneath.OK {
		oracle.Missing(t, "this kernel can't put mounts beneath others: "+abilities.Beneath.Reason)
	}
	n.level, err = mount.Decide(abilities, mount.Checked)
	must(t, err)
	// Where a test is run for the sake of the kernel's checks, it isn't done without.
	if want := os.Getenv("POWERNODE_TEST_LEVEL"); want != "" && want != string(n.level) {
		t.Fatalf("the integrity level is %s instead of %s", n.level, want)
	}
	generations, err := n.store.Generations()
	must(t, err)
	for _, g := range generations {
		n.digests = append(n.digests, g.RootDigest)
	}
	return n
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

// build makes a tree of files, given by path with their content: "-> " before a link's target, a slash
// at the end of a directory's path. All are executable.
func (n *node) build(files map[string]string) *tree.Node {
	n.Helper()
	root := tree.NewDir(0o755)
	put := func(path string, node *tree.Node) {
		at := root
		parts := strings.Split(path, "/")
		for _, part := range parts[:len(parts)-1] {
			next := at.Child(part)
			if next == nil {
				next = tree.NewDir(0o755)
				at.SetChild(part, next)
			}
			at = next
		}
		if name := parts[len(parts)-1]; name != "" {
			at.SetChild(name, node)
		}
	}
	put("sbin/init", n.regular(initProgram()))
	for path, content := range files {
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			put(path, &tree.Node{Kind: tree.Symlink, Mode: 0o777, Target: target})
			continue
		}
		put(path, n.regular(content))
	}
	return root
}

func (n *node) regular(content string) *tree.Node {
	n.Helper()
	node := &tree.Node{Kind: tree.Regular, Mode: 0o755, Size: uint64(len(content)), Mtime: tree.Time{Sec: 1}}
	if len(content) <= tree.InlineMax {
		node.Inline = []byte(content)
		return node
	}
	path := filepath.Join(n.TempDir(), "object")
	must(n, os.WriteFile(path, []byte(content), 0o600))
	f, err := os.Open(path)
	must(n, err)
	defer f.Close()
	node.Digest, _, err = n.store.AddFile(f)
	must(n, err)
	return node
}

// generation stores a root image and returns its side.
func (n *node) generation(root *tree.Node) Side {
	n.Helper()
	var objects []fsverity.Digest
	for _, node := range root.Walk() {
		if node.Kind == tree.Regular && !node.Digest.IsZero() {
			objects = append(objects, node.Digest)
		}
	}
	data, digest, err := composefs.Build(root, composefs.V1)
	must(n, err)
	number, err := n.store.PutGeneration(store.Generation{RootDigest: digest, Cause: "test", Level: string(n.level), Created: time.Unix(1, 0)}, bytes.NewReader(data))
	must(n, err)
	if n.level == mount.Enforced {
		must(n, n.store.EnableVerity(context.Background(), append(objects, digest)))
	}
	n.digests = append(n.digests, digest)
	return Side{Generation: number, RootDigest: digest}
}

func (n *node) files(files map[string]string) Side {
	n.Helper()
	return n.generation(n.build(files))
}

// side is an earlier generation, from 1 on.
func (n *node) side(number int) Side {
	return Side{Generation: uint64(number), RootDigest: n.digests[number-1]}
}

// read returns the tree of a root image.
func (n *node) read(digest fsverity.Digest) (*tree.Node, error) {
	if t, ok := n.trees[digest]; ok {
		return t, nil
	}
	image, err := n.store.OpenRootImage(digest)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	info, err := image.Stat()
	if err != nil {
		return nil, err
	}
	n.trees[digest], err = composefs.Read(image, info.Size())
	return n.trees[digest], err
}

// boot makes the root of a generation, with shared propagation as systemd has it.
func (n *node) boot(side Side, change func(*rootfs.Spec)) *node {
	n.Helper()
	spec := rootfs.Spec{
		At: n.root, Scratch: n.run, Store: n.store, RootDigest: side.RootDigest, Level: n.level, Persist: filepath.Join(n.dir, "persist"),
		Upper: rootfs.Upper{Size: "64m"}, Remark: func(text, hint string) { n.Errorf("boot: %s", text) },
	}
	if change != nil {
		change(&spec)
	}
	_, err := rootfs.Make(context.Background(), spec)
	must(n, err)
	must(n, unix.Mount("", n.root, "", unix.MS_SHARED|unix.MS_REC, ""))
	n.Cleanup(n.shutDown)
	return n
}

// shutDown takes away all that is mounted below the node's directory.
func (n *node) shutDown() {
	table, err := mount.ReadTable()
	must(n, err)
	for _, e := range slices.Backward(table) {
		if strings.HasPrefix(e.Point, n.run+"/") {
			_ = unix.Unmount(e.Point, unix.MNT_DETACH)
		}
	}
}

func (n *node) place() Place {
	return Place{Root: n.root, RunDir: n.run, Images: n.store, Remark: func(text, _ string) { n.remarks = append(n.remarks, text) }}
}

func (n *node) spec(from, to Side) Spec {
	n.Helper()
	a, err := n.read(from.RootDigest)
	must(n, err)
	b, err := n.read(to.RootDigest)
	must(n, err)
	return Spec{Place: n.place(), From: from, To: to, Changes: Changes(difference.Compare(a, b).Top)}
}

// swap changes the root and checks that it is all changed.
func (n *node) swap(from, to Side) Result {
	n.Helper()
	r, err := Swap(context.Background(), n.spec(from, to))
	must(n, err)
	must(n, Finish(n.run, nil))
	n.whole(to)
	return r
}

// whole checks that what is mounted is a root image as a whole, with nothing piled up.
func (n *node) whole(side Side) State {
	n.Helper()
	s, err := Mounted(n.root)
	must(n, err)
	deviations, err := Deviations(s, n.root, side.RootDigest, n.read)
	must(n, err)
	if len(deviations) > 0 {
		n.Errorf("%s is mounted but for %+v", side, deviations)
	}
	for _, d := range s.Directories {
		if d.Covered > 0 {
			n.Errorf("%d mounts are covered at /%s", d.Covered, d.Name)
		}
	}
	if e, err := mount.At(filepath.Join(n.run, scratchName)); err == nil {
		n.Errorf("left behind: %s", e.Point)
	}
	return s
}

func (n *node) in(path string) string { return filepath.Join(n.root, path) }

func (n *node) content(path string) string {
	n.Helper()
	b, err := os.ReadFile(n.in(path))
	if err != nil {
		return "error: " + err.Error()
	}
	return string(b)
}

func (n *node) wantContent(want map[string]string) {
	n.Helper()
	for path, content := range want {
		got := n.content(path)
		if content == "" {
			if _, err := os.Lstat(n.in(path)); !errors.Is(err, unix.ENOENT) {
				n.Errorf("%s is there: %.40q", path, got)
			}
		} else if got != content {
			n.Errorf("%s reads %.40q, want %.40q", path, got, content)
		}
	}
}

func (n *node) write(path, content string) {
	n.Helper()
	must(n, os.WriteFile(n.in(path), []byte(content), 0o644))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
