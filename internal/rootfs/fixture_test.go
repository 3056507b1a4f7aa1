package rootfs

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
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

func TestMain(m *testing.M) { os.Exit(mounttest.Main(m)) }

// big is content that is too long to lie in an image.
var big = strings.Repeat("powernode ", 1000)

// initProgram is a static program for this machine, as far as its headers say.
func initProgram(t testing.TB) string {
	t.Helper()
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "riscv64": elf.EM_RISCV}[runtime.GOARCH]
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Phoff: 64, Phentsize: 56, Phnum: 1}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)
	var b bytes.Buffer
	must(t, errors.Join(binary.Write(&b, binary.LittleEndian, h), binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_LOAD)})))
	return b.String()
}

// node is a machine with a disk: what it has in memory ends with each boot.
type node struct {
	testing.TB
	persist string
	store   *store.Store
	level   mount.Level
	remarks []string
	boots   int
}

func newNode(t testing.TB) *node {
	t.Helper()
	mounttest.NeedMounts(t)
	return nodeIn(t, t.TempDir())
}

func nodeIn(t testing.TB, persist string) *node {
	t.Helper()
	n := &node{TB: t, persist: persist}
	var err error
	n.store, err = store.Open(filepath.Join(n.persist, "state"), store.Options{})
	must(t, err)
	t.Cleanup(func() { n.store.Close() })
	abilities, err := mount.Probe(n.store.ObjectsPath())
	must(t, err)
	n.level, err = mount.Decide(abilities, mount.Checked)
	must(t, err)
	return n
}

// image makes a root image of files, given by path with their content; one that ends in a slash is
// a directory, and its content the mode, if it has one. There is an init and all that is mounted on.
func (n *node) image(files map[string]string) fsverity.Digest {
	n.Helper()
	source := n.TempDir()
	put := func(name, content string) {
		path := filepath.Join(source, name)
		if strings.HasSuffix(name, "/") {
			must(n, os.MkdirAll(path, 0o755))
			if content != "" {
				mode, err := strconv.ParseUint(content, 8, 12)
				must(n, errors.Join(err, os.Chmod(path, os.FileMode(mode))))
			}
			return
		}
		must(n, os.MkdirAll(filepath.Dir(path), 0o755))
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			must(n, os.Symlink(target, path))
			return
		}
		must(n, os.WriteFile(path, []byte(content), 0o644))
	}
	if _, ok := files["sbin/init"]; !ok {
		put("sbin/init", initProgram(n))
		must(n, os.Chmod(filepath.Join(source, "sbin/init"), 0o755))
	}
	for name, content := range files {
		put(name, content)
	}
	var digests []fsverity.Digest
	root, err := composefs.FromDir(context.Background(), source, composefs.ScanOptions{
		UseEpoch: true, Content: func(f *os.File) (fsverity.Digest, uint64, error) { return n.store.AddFile(f) },
	})
	must(n, err)
	for _, node := range root.Walk() {
		if node.Kind == tree.Regular && !node.Digest.IsZero() {
			digests = append(digests, node.Digest)
		}
	}
	data, digest, err := composefs.Build(root, composefs.V1)
	must(n, err)
	_, err = n.store.PutGeneration(store.Generation{RootDigest: digest, Cause: "test", Level: string(n.level), Created: time.Unix(1, 0)}, bytes.NewReader(data))
	must(n, err)
	if n.level == mount.Enforced {
		must(n, n.store.EnableVerity(context.Background(), append(digests, digest)))
	}
	return digest
}

// running is a root that was made, and where it is.
type running struct {
	*Root
	n    *node
	at   string
	spec Spec
}

func (n *node) spec(root fsverity.Digest, change func(*Spec)) Spec {
	n.Helper()
	n.boots++
	run := filepath.Join(n.TempDir(), "run")
	must(n, os.Mkdir(run, 0o755))
	n.remarks = nil
	spec := Spec{
		At: filepath.Join(run, "newroot"), Scratch: run, Store: n.store, RootDigest: root, Level: n.level, Persist: n.persist,
		Upper: Upper{Size: "16m"}, Remark: func(text, hint string) { n.remarks = append(n.remarks, text) },
	}
	if change != nil {
		change(&spec)
	}
	return spec
}

// boot makes a root; it is unmade at the end of the test at the latest.
func (n *node) boot(root fsverity.Digest, change func(*Spec)) *running {
	n.Helper()
	spec := n.spec(root, change)
	r, err := Make(context.Background(), spec)
	if err != nil {
		n.Fatalf("%v; remarks %q", err, n.remarks)
	}
	n.Cleanup(r.Unmake)
	return &running{Root: r, n: n, at: spec.At, spec: spec}
}

func (r *running) in(path string) string { return filepath.Join(r.at, path) }

func (r *running) read(path string) string {
	r.n.Helper()
	b, err := os.ReadFile(r.in(path))
	if err != nil {
		return "error: " + err.Error()
	}
	return string(b)
}

func (r *running) write(path, content string) {
	r.n.Helper()
	must(r.n, os.WriteFile(r.in(path), []byte(content), 0o644))
}

// shutDown unmakes the root and checks that nothing of it is mounted any more.
func (r *running) shutDown() {
	r.n.Helper()
	r.Unmake()
	table, err := mount.ReadTable()
	must(r.n, err)
	for _, e := range table {
		if strings.HasPrefix(e.Point, r.spec.Scratch+"/") {
			r.n.Errorf("%s is still mounted at %s", e.FSType, e.Point)
		}
	}
}

func (n *node) wantRemarks(want ...string) {
	n.Helper()
	for _, w := range want {
		if !slices.ContainsFunc(n.remarks, func(r string) bool { return strings.Contains(r, w) }) {
			n.Errorf("remarks %q lack %q", n.remarks, w)
		}
	}
	if len(n.remarks) != len(want) {
		n.Errorf("remarks %q, want %d", n.remarks, len(want))
	}
}

// readOnly returns a node whose disk can't be written, on the disk of n.
func (n *node) readOnly() *node {
	n.Helper()
	n.store.Close()
	must(n, unix.Mount(n.persist, n.persist, "", unix.MS_BIND, ""))
	n.Cleanup(func() { must(n, unix.Unmount(n.persist, unix.MNT_DETACH)) })
	must(n, unix.Mount("", n.persist, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	ro := &node{TB: n.TB, persist: n.persist, level: n.level}
	var err error
	ro.store, err = store.Open(filepath.Join(n.persist, "state"), store.Options{ReadOnly: true})
	must(n, err)
	n.Cleanup(func() { ro.store.Close() })
	return ro
}

func failing(label string, err error) durable.Hook {
	return func(op string) error {
		if strings.HasPrefix(op, label) {
			return err
		}
		return nil
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
