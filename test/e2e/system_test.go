package e2e

import (
	"bufio"
	"encoding/json"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// system is a booted node. What is asked of it, its init does inside.
type system struct {
	*node
	process *process
	conn    net.Conn
	lines   *bufio.Scanner
}

func newSystem(n *node, p *process, conn net.Conn) *system {
	s := &system{node: n, process: p, conn: conn, lines: bufio.NewScanner(conn)}
	s.lines.Buffer(nil, 64<<20)
	n.t.Cleanup(func() {
		_ = conn.Close() // the system has exited, or is killed with its process
	})
	return s
}

// control is the init program's request and answer.
type control struct {
	Op   string   `json:"op"`
	Args []string `json:"args"`
	Data string   `json:"data"`
}

type controlled struct {
	Code           int
	Stdout, Stderr string
	Error          string
}

func (s *system) do(op, data string, args ...string) controlled {
	s.t.Helper()
	if err := json.NewEncoder(s.conn).Encode(control{op, args, data}); err != nil {
		s.t.Fatalf("%s %v: %v\n%s", op, args, err, s.console())
	}
	if !s.lines.Scan() {
		s.t.Fatalf("%s %v: the system is gone (%v)\n%s", op, args, s.lines.Err(), s.console())
	}
	return decode[controlled](s.t, s.lines.Bytes())
}

// console is what the boot said.
func (s *system) console() string { return s.process.Log.String() }

// run runs a program inside.
func (s *system) run(args ...string) result {
	s.t.Helper()
	return s.ran("run", args...)
}

// sandboxed runs the agent inside, in a mount namespace of its own.
func (s *system) sandboxed(args ...string) result {
	s.t.Helper()
	return s.ran("sandboxed", append([]string{boot.AgentPath}, args...)...)
}

func (s *system) ran(op string, args ...string) result {
	s.t.Helper()
	a := s.do(op, "", args...)
	if a.Error != "" {
		s.t.Fatalf("%v: %s", args, a.Error)
	}
	return result{What: strings.TrimPrefix(strings.Join(args, " "), filepath.Dir(boot.AgentPath)+"/"), Code: a.Code, Stdout: a.Stdout, Stderr: a.Stderr}
}

// agent runs the agent inside.
func (s *system) agent(args ...string) result {
	s.t.Helper()
	return s.run(append([]string{boot.AgentPath}, args...)...)
}

// read returns a file's content inside; a missing file fails the test.
func (s *system) read(path string) string {
	s.t.Helper()
	a := s.do("read", "", path)
	if a.Error != "" {
		s.t.Fatal(a.Error)
	}
	return a.Stdout
}

// has says whether there is such a file inside.
func (s *system) has(path string) bool {
	s.t.Helper()
	return s.do("read", "", path).Error == ""
}

// write writes a file inside, and returns what the kernel says to that.
func (s *system) write(path, text string) string {
	s.t.Helper()
	return s.do("write", text, path).Error
}

// exit ends the system in order.
func (s *system) exit() {
	s.t.Helper()
	s.do("exit", "")
	<-s.process.Done
	if code := s.process.Cmd.ProcessState.ExitCode(); code != 0 {
		s.t.Fatalf("the system ended with %d:\n%s", code, s.console())
	}
	s.nothingMounted()
}

// facts are what the booted system knows of its boot.
func (s *system) facts() boot.Facts {
	s.t.Helper()
	return decode[boot.Facts](s.t, []byte(s.read("/run/powernode/boot.json")))
}

// statusDoc is the part of `status --output json` that tests look at.
type statusDoc struct {
	InStep             bool     `json:"in_step"`
	Reasons            []string `json:"reasons"`
	Generation         uint64   `json:"generation"`
	RootDigest         string   `json:"root_digest"`
	ExpectedRootDigest string   `json:"expected_root_digest"`
	Level              string   `json:"integrity_level"`
	Remarks            []string `json:"remarks"`
	Modules            []struct {
		Name, Version string
	} `json:"modules"`
}

// status asks the agent inside for what is mounted. Its exit code must agree with what it says.
func (s *system) status() statusDoc {
	s.t.Helper()
	var doc statusDoc
	r := s.agent("status", "--output", "json")
	if r.Code == 8 {
		r.Code = 0
		defer func() {
			if doc.InStep || len(doc.Reasons) == 0 {
				s.t.Errorf("status: exit code 8, in step %t because of %q", doc.InStep, doc.Reasons)
			}
		}()
	}
	r.Into(s.t, &doc)
	if r.Code == 0 && len(doc.Reasons) > 0 && doc.InStep {
		s.t.Errorf("status: in step in spite of %q", doc.Reasons)
	}
	return doc
}

// report lets the service run until the platform has a heartbeat of this boot, and returns what
// the operator then sees.
func (s *system) report() operatorapi.Node {
	s.t.Helper()
	bootID := strings.TrimSpace(s.read("/proc/sys/kernel/random/boot_id"))
	before := s.detail().Node.Report
	s.do("start", "", "service", boot.AgentPath, "service", "--reconcile=off")
	defer func() {
		if a := s.do("stop", "", "service"); a.Code != 0 || a.Error != "" {
			s.t.Errorf("the service ends with %d %s:\n%s", a.Code, a.Error, a.Stderr)
		}
	}()
	for {
		node := s.detail().Node
		if r := node.Report; r != nil && r.BootID == bootID && (before == nil || r.ReceivedAt.After(before.ReceivedAt)) {
			return node
		}
		if err := s.t.Context().Err(); err != nil {
			s.t.Fatal(err)
		}
		select {
		case <-s.process.Done:
			s.t.Fatalf("the system is gone\n%s", s.console())
		case <-tick():
		}
	}
}

// objects returns the store's objects by path, with their sizes.
func (n *node) objects() map[string]int64 {
	n.t.Helper()
	found := make(map[string]int64)
	dir := filepath.Join(n.state(), "objects")
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return ignoreMissing(err)
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		found[rel] = info.Size()
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return found
}

// damage flips one byte in the middle of a file, whatever protects it from accidents.
func damage(t testing.TB, path string) {
	t.Helper()
	text := read(t, path)
	text[len(text)/2] ^= 1
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(text[len(text)/2:len(text)/2+1], int64(len(text)/2)); err != nil {
		t.Fatal(err)
	}
}

// tick is how long to wait before looking at the platform again.
func tick() <-chan time.Time { return time.After(50 * time.Millisecond) }
