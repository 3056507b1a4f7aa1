package lab

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Result is what a program said and how it ended.
type Result struct {
	// What is the command line, for messages.
	What   string
	Code   int
	Stdout string
	Stderr string
}

// Command runs a program to its end. env is added to an environment that holds nothing else of
// the machine's but PATH and a home that isn't there.
func Command(t testing.TB, stdin string, env []string, name string, args ...string) Result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), Program(name), args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GOTRACEBACK=all"}, env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return Result{name + " " + strings.Join(args, " "), cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// OK fails the test unless the program ended well, and returns its output.
func (r Result) OK(t testing.TB) string {
	t.Helper()
	if r.Code != 0 {
		t.Fatalf("%s: exit code %d\n%s%s", r.What, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Into decodes the JSON output of a program that ended well.
func (r Result) Into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.OK(t)), v); err != nil {
		t.Fatalf("%s: %v\n%s", r.What, err, r.Stdout)
	}
}

// Refused fails the test unless the program ended with that exit code and one sentence of its own
// on standard error, which holds every one of the wanted words and something to do about it. Lines
// that aren't the program's error (a boot's stages, a server's log) are let pass, unless they say
// the same a second time.
func (r Result) Refused(t testing.TB, code int, wants ...string) {
	t.Helper()
	name, _, _ := strings.Cut(r.What, " ")
	sentence := ""
	var others []string
	for line := range strings.Lines(r.Stderr) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, name+": "); ok {
			if sentence != "" {
				t.Errorf("%s: a second error", r.What)
			}
			sentence = rest
			continue
		}
		others = append(others, line)
	}
	said, todo, hinted := cutLast(sentence, "; ")
	if !hinted {
		// What is wrong with a value, and which would be right, is one clause.
		said, todo, hinted = cutLast(sentence, ": want ")
	}
	switch {
	case r.Code != code:
		t.Errorf("%s: exit code %d, want %d", r.What, r.Code, code)
	case sentence == "":
		t.Errorf("%s: no error is said", r.What)
	case !hinted || todo == "":
		t.Errorf("%s: the error says nothing of what to do", r.What)
	case strings.Contains(r.Stderr, "panic:") || strings.Contains(r.Stderr, "goroutine "):
		t.Errorf("%s: panics", r.What)
	}
	for _, line := range others {
		if said != "" && strings.Contains(line, said) {
			t.Errorf("%s: the error is said twice", r.What)
		}
	}
	for _, want := range wants {
		if !strings.Contains(sentence, want) {
			t.Errorf("%s: the error doesn't say %q", r.What, want)
		}
	}
	if t.Failed() {
		t.Logf("stderr of %s:\n%s", r.What, r.Stderr)
	} else if testing.Verbose() {
		t.Logf("exit %d: %s", r.Code, sentence)
	}
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// Transcript collects what a running process says, and lets others wait for a word in it.
type Transcript struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{} // closed with each write
}

// NewTranscript returns an empty one.
func NewTranscript() *Transcript { return &Transcript{grown: make(chan struct{})} }

// Write adds to it.
func (s *Transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.grown)
	s.grown = make(chan struct{})
	return s.text.Write(p)
}

// String returns all of it.
func (s *Transcript) String() string {
	text, _ := s.Look()
	return text
}

// Look returns all of it, and what is closed once there is more.
func (s *Transcript) Look() (string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String(), s.grown
}

// Await returns the text once one of the words is in it; false says that done came first.
func (s *Transcript) Await(done <-chan struct{}, words ...string) (string, bool) {
	for ended := false; ; {
		text, grown := s.Look()
		if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) }) {
			return text, true
		}
		if ended {
			return text, false
		}
		select {
		case <-grown:
		case <-done:
			ended = true
		}
	}
}

// Process is a program that goes on, until the test's end at the latest.
type Process struct {
	Cmd *exec.Cmd
	// Log is its standard output and error.
	Log *Transcript
	// Done is closed once it has ended.
	Done chan struct{}
}

// StartProcess starts a program, and ends it with the test.
func StartProcess(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Cmd: cmd, Log: NewTranscript(), Done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.Log, p.Log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // the exit code says it
		close(p.Done)
	}()
	t.Cleanup(p.Kill)
	return p
}

// Kill ends the process and waits for it. One that has ended is left alone.
func (p *Process) Kill() {
	_ = p.Cmd.Process.Kill()
	<-p.Done
}

// End sends a signal, waits, and returns how it ended.
func (p *Process) End(t testing.TB, s os.Signal) Result {
	t.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	<-p.Done
	return p.Result()
}

// Result is what an ended process said.
func (p *Process) Result() Result {
	name := strings.TrimPrefix(p.Cmd.Path, Program("")+"/")
	return Result{What: name, Code: p.Cmd.ProcessState.ExitCode(), Stderr: p.Log.String()}
}
