package qemu

import (
	"bufio"
	"encoding/json"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/test/lab"
)

// The lines on the control port, one JSON object each (test/lab/init).
type (
	// Request is what the test sends.
	Request struct {
		Op   string   `json:"op"`
		Args []string `json:"args,omitempty"`
		Data string   `json:"data,omitempty"`
	}
	// Answer is what the guest sends.
	Answer struct {
		// Hello is in the line that the guest's init sends by itself when it starts.
		Hello          bool
		Code           int
		Stdout, Stderr string
		Error          string
	}
)

// receive sorts the lines that come from the guest, for as long as QEMU runs.
func (g *Guest) receive() {
	lines := bufio.NewScanner(g.conn)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var a Answer
		// A guest that was cut off in the middle of a line goes on with the next one.
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			continue
		}
		if a.Hello {
			g.hello <- struct{}{}
			continue
		}
		g.answer <- append([]byte(nil), lines.Bytes()...)
	}
}

// WaitInit waits until the init of the booted system has started. Each start counts once, so that
// a second call waits for a restart.
func (g *Guest) WaitInit() {
	g.t.Helper()
	select {
	case <-g.hello:
	case <-g.Done:
		// The last word may still be on its way.
		g.t.Fatalf("the machine ended before its init started:\n%s", g.Console())
	case <-time.After(Patience):
		g.t.Fatalf("init doesn't start:\n%s", g.Console())
	}
}

// TryInit is WaitInit for a machine that may end before: then it returns false.
func (g *Guest) TryInit() bool {
	g.t.Helper()
	select {
	case <-g.hello:
		return true
	case <-g.Done:
	case <-time.After(Patience):
		g.t.Fatalf("init doesn't start, and the machine doesn't end:\n%s", g.Console())
	}
	return false
}

// Do has the guest's init do something.
func (g *Guest) Do(r Request) Answer {
	g.t.Helper()
	a, ok := g.Try(r)
	if !ok {
		g.t.Fatalf("%s %v: no answer:\n%s", r.Op, r.Args, g.Console())
	}
	return a
}

// Try is Do for what may end the machine: then it returns false.
func (g *Guest) Try(r Request) (Answer, bool) {
	g.t.Helper()
	line, err := json.Marshal(r)
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := g.conn.Write(append(line, '\n')); err != nil {
		return Answer{}, false
	}
	select {
	case line := <-g.answer:
		var a Answer
		if err := json.Unmarshal(line, &a); err != nil {
			g.t.Fatal(err)
		}
		return a, true
	case <-g.Done:
	case <-time.After(max(g.patience, Patience)):
	}
	return Answer{}, false
}

// Run runs a program inside.
func (g *Guest) Run(args ...string) lab.Result {
	g.t.Helper()
	a := g.Do(Request{Op: "run", Args: args})
	if a.Error != "" {
		g.t.Fatalf("%v: %s", args, a.Error)
	}
	return lab.Result{What: strings.Join(args, " "), Code: a.Code, Stdout: a.Stdout, Stderr: a.Stderr}
}

// Shell runs a script in the guest's shell, where it has one.
func (g *Guest) Shell(script string) lab.Result {
	g.t.Helper()
	return g.Run("/bin/sh", "-c", script)
}

// Read returns a file's content inside; a file that can't be read fails the test.
func (g *Guest) Read(path string) string {
	g.t.Helper()
	a := g.Do(Request{Op: "read", Args: []string{path}})
	if a.Error != "" {
		g.t.Fatal(a.Error)
	}
	return a.Stdout
}

// ReadError returns what the kernel says to reading a file inside, "" if it lets it be read.
func (g *Guest) ReadError(path string) string {
	g.t.Helper()
	return g.Do(Request{Op: "read", Args: []string{path}}).Error
}

// Write writes a file inside, and returns what the kernel says to that.
func (g *Guest) Write(path, text string) string {
	g.t.Helper()
	return g.Do(Request{Op: "write", Args: []string{path}, Data: text}).Error
}

// PowerOff ends the machine in order: everything is written.
func (g *Guest) PowerOff() {
	g.t.Helper()
	g.Try(Request{Op: "poweroff"})
	g.WaitEnd()
}

// Reboot has the machine restart itself in order, and returns at once. QEMU ends unless the
// machine Reboots; WaitInit waits for the next start.
func (g *Guest) Reboot() {
	g.t.Helper()
	if _, err := g.conn.Write([]byte("{\"op\":\"reboot\"}\n")); err != nil {
		g.t.Fatal(err)
	}
}
