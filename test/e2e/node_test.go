package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// node is one machine: its disk, and what its initramfs would hold.
type node struct {
	t    testing.TB
	p    *platform
	name string
	// persist is its disk, identity its identity.cfg, trust its trust policy.
	persist, identity, trust string
	// flags are further ones of boot, init the program to start in place of the usual one.
	flags, init []string
	token       operatorapi.Token
}

// node makes a node that has never booted, with these modules assigned.
func (p *platform) node(name string, modules ...string) *node {
	p.T.Helper()
	n := p.blankNode(p.T, name)
	p.Operator("node", "create", name).OK(p.T)
	if len(modules) > 0 {
		p.Operator(append([]string{"assign", name}, modules...)...).OK(p.T)
	}
	n.newToken()
	return n
}

// blankNode makes a node's disk and trust policy, without an identity.
func (p *platform) blankNode(t testing.TB, name string) *node {
	t.Helper()
	dir := tempDir(t)
	n := &node{
		t: t, p: p, name: name, persist: filepath.Join(dir, "persist"),
		identity: filepath.Join(dir, "identity.cfg"), trust: filepath.Join(dir, "trust", "trust.yaml"),
	}
	for _, d := range []string{filepath.Join(n.persist, "e2e"), filepath.Dir(n.trust)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n.trusts(`"127.0.0.1:*/modules/*"`)
	return n
}

// on returns the node as another test's, for its messages and its end.
func (n *node) on(t testing.TB) *node {
	c := *n
	c.t = t
	return &c
}

// newToken gives the node a bootstrap token and writes its identity.cfg.
func (n *node) newToken(flags ...string) {
	n.t.Helper()
	n.token = n.p.Token(n.name, flags...)
	n.identify(n.token.PlatformURL, n.token.CAPEM)
}

// identify writes the node's identity.cfg.
func (n *node) identify(url, ca string) {
	n.t.Helper()
	text := fmt.Sprintf("ID=%s\nKEY=%s\nSERVER=%s\nCA_PEM=\"%s\"\n", n.token.NodeID, n.token.Token, url, ca)
	write(n.t, n.identity, []byte(text), 0o600)
}

// trusts writes a trust policy with one rule: the operator's key counts for these images.
func (n *node) trusts(images string) {
	n.t.Helper()
	n.p.Trust(n.t, filepath.Dir(n.trust), images, "")
}

// state is the node's directory of record.
func (n *node) state() string { return filepath.Join(n.persist, "var/lib/powernode") }

// bootProcess starts a boot, as the first process of namespaces of its own.
func (n *node) bootProcess(further ...string) *process {
	n.t.Helper()
	needBoot(n.t)
	args := []string{"boot", "--namespace", "--persist", n.persist, "--identity-file", n.identity, "--trust-policy", n.trust}
	args = append(append(args, n.flags...), further...)
	if len(n.init) > 0 {
		args = append(append(args, "--"), n.init...)
	}
	cmd := exec.Command(program("powernode-agent"), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GOTRACEBACK=all", "SECRET=of the old root"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	return startProcess(n.t, cmd)
}

// boot boots the node, and returns once its init has reported. The system runs until the test's
// end, or until it is told to exit.
func (n *node) boot() *system {
	n.t.Helper()
	s, r := n.tryBoot()
	if s == nil {
		n.t.Fatalf("the boot failed with %d:\n%s", r.Code, r.Stderr)
	}
	return s
}

// tryBoot boots the node. Either of what it returns is zero.
func (n *node) tryBoot() (*system, result) {
	n.t.Helper()
	needBoot(n.t)
	l := n.listenControl()
	p := n.bootProcess()
	accepted := make(chan net.Conn, 1)
	go func() {
		if conn, err := l.Accept(); err == nil {
			accepted <- conn
		}
		close(accepted)
	}()
	select {
	case conn := <-accepted:
		_ = l.Close() // one system, one connection
		return newSystem(n, p, conn), result{}
	case <-p.Done:
		_ = l.Close() // the system that would dial is gone
		r := p.Result()
		r.What = "powernode-agent boot"
		return nil, r
	}
}

// listenControl listens where the init program dials. Where there is no disk to write to, nobody
// will dial.
func (n *node) listenControl() net.Listener {
	n.t.Helper()
	path := filepath.Join(n.persist, "e2e", "ctl")
	_ = os.Remove(path) // a kill leaves it behind
	l, err := net.Listen("unix", path)
	if err != nil {
		l, err = net.Listen("unix", filepath.Join(tempDir(n.t), "ctl"))
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return l
}

// refuses boots the node, which must fail with that exit code and one sentence that holds the
// wanted words, and leave nothing half done.
func (n *node) refuses(code int, wants ...string) result {
	n.t.Helper()
	before := n.records()
	s, r := n.tryBoot()
	if s != nil {
		s.exit()
		n.t.Fatalf("the node boots:\n%s", s.console())
	}
	r.Refused(n.t, code, wants...)
	n.nothingHalfDone(before)
	n.nothingMounted()
	return r
}

// records returns what the node's store says: every file that names credentials, modules and
// generations, with a hash of its content. Objects and half downloads that nothing names are none.
func (n *node) records() map[string]string {
	n.t.Helper()
	records := make(map[string]string)
	for _, dir := range []string{"modules", "generations", "pki", "roots"} {
		err := filepath.WalkDir(filepath.Join(n.state(), dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return ignoreMissing(err)
			}
			rel, err := filepath.Rel(n.state(), path)
			if err != nil || transient(rel) {
				return err
			}
			sum := sha256.Sum256(read(n.t, path))
			records[rel] = hex.EncodeToString(sum[:])
			return nil
		})
		if err != nil {
			n.t.Fatal(err)
		}
	}
	return records
}

func ignoreMissing(err error) error {
	if os.IsNotExist(err) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return err
}

// transient says that a file of the store is a lock, or the key that waits for its certificate.
func transient(path string) bool {
	return strings.HasSuffix(path, ".lock") || filepath.Base(path) == "lock" || strings.HasPrefix(filepath.Base(path), "pending")
}

// sameRecords checks that nothing was recorded since before.
func (n *node) sameRecords(before map[string]string) {
	n.t.Helper()
	for _, path := range n.changes(before) {
		n.t.Errorf("half done: %s is new, changed or gone", path)
	}
}

// nothingHalfDone checks that since before nothing was recorded but work that is done and need not
// be done again: the credentials of a node that had none, and modules that prove to be whole.
func (n *node) nothingHalfDone(before map[string]string) {
	n.t.Helper()
	whole := make(map[string]bool)
	for _, path := range n.changes(before) {
		parts := strings.Split(path, "/")
		switch {
		case before[path] == "" && path == "pki/credentials.json":
		case before[path] == "" && parts[0] == "modules":
			whole[parts[1]] = true
		default:
			n.t.Errorf("half done: %s is new, changed or gone", path)
		}
	}
	for digits := range whole {
		if r := n.agent("verify", "sha256:"+digits, "--trust-policy", n.trust); r.Code != 0 {
			n.t.Errorf("half done: a module was kept that isn't whole: %s", r.Stderr)
		}
	}
}

func (n *node) changes(before map[string]string) []string {
	n.t.Helper()
	after := n.records()
	var paths []string
	for path := range after {
		if before[path] != after[path] {
			paths = append(paths, path)
		}
	}
	for path := range before {
		if after[path] == "" {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// agent runs the agent on the machine that the tests run on, over the node's disk.
func (n *node) agent(args ...string) result {
	n.t.Helper()
	return command(n.t, "", nil, "powernode-agent", append(args, "--state", n.state())...)
}

// nothingMounted checks that no mount and no loop device of the node is left on the machine.
func (n *node) nothingMounted() {
	n.t.Helper()
	if table := string(read(n.t, "/proc/self/mountinfo")); strings.Contains(table, n.state()) || strings.Contains(table, "/run/powernode") {
		n.t.Errorf("something is left mounted:\n%s", table)
	}
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		n.t.Fatal(err)
	}
	for _, l := range loops {
		if file, err := os.ReadFile(l); err == nil && strings.Contains(string(file), n.state()) {
			n.t.Errorf("a loop device is left: %s", file)
		}
	}
}

// detail is what the operator sees of the node.
func (n *node) detail() operatorapi.NodeDetail {
	n.t.Helper()
	var d operatorapi.NodeDetail
	n.p.Operator("node", "show", n.name, "--output", "json").Into(n.t, &d)
	return d
}

// pointer returns the number of the generation that a pointer names.
func (n *node) pointer(name string) string {
	n.t.Helper()
	return strings.TrimSpace(string(read(n.t, filepath.Join(n.state(), "generations", name))))
}
