package e2e

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

// result is what a program said and how it ended.
type result struct {
	what   string
	code   int
	stdout string
	stderr string
}

// command runs a program to its end. env is added to an environment that holds nothing else of
// the machine's but PATH and a home that isn't there.
func command(t testing.TB, stdin string, env []string, name string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program(name), args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GOTRACEBACK=all"}, env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{name + " " + strings.Join(args, " "), cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// ok fails the test unless the program ended well, and returns its output.
func (r result) ok(t testing.TB) string {
	t.Helper()
	if r.code != 0 {
		t.Fatalf("%s: exit code %d\n%s%s", r.what, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// into decodes the JSON output of a program that ended well.
func (r result) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.ok(t)), v); err != nil {
		t.Fatalf("%s: %v\n%s", r.what, err, r.stdout)
	}
}

// refused fails the test unless the program ended with that exit code and one sentence of its own
// on standard error, which holds every one of the wanted words and something to do about it. Lines
// that aren't the program's error (a boot's stages, a server's log) are let pass, unless they say
// the same a second time.
func (r result) refused(t testing.TB, code int, wants ...string) {
	t.Helper()
	name, _, _ := strings.Cut(r.what, " ")
	sentence := ""
	var others []string
	for line := range strings.Lines(r.stderr) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, name+": "); ok {
			if sentence != "" {
				t.Errorf("%s: a second error", r.what)
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
	case r.code != code:
		t.Errorf("%s: exit code %d, want %d", r.what, r.code, code)
	case sentence == "":
		t.Errorf("%s: no error is said", r.what)
	case !hinted || todo == "":
		t.Errorf("%s: the error says nothing of what to do", r.what)
	case strings.Contains(r.stderr, "panic:") || strings.Contains(r.stderr, "goroutine "):
		t.Errorf("%s: panics", r.what)
	}
	for _, line := range others {
		if said != "" && strings.Contains(line, said) {
			t.Errorf("%s: the error is said twice", r.what)
		}
	}
	for _, want := range wants {
		if !strings.Contains(sentence, want) {
			t.Errorf("%s: the error doesn't say %q", r.what, want)
		}
	}
	if t.Failed() {
		t.Logf("stderr of %s:\n%s", r.what, r.stderr)
	} else if testing.Verbose() {
		t.Logf("exit %d: %s", r.code, sentence)
	}
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// transcript collects what a running process says, and lets others wait for a word in it.
type transcript struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{} // closed with each write
}

func newTranscript() *transcript { return &transcript{grown: make(chan struct{})} }

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.grown)
	s.grown = make(chan struct{})
	return s.text.Write(p)
}

func (s *transcript) String() string {
	text, _ := s.look()
	return text
}

func (s *transcript) look() (string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String(), s.grown
}

// await returns the text once one of the words is in it; false says that done came first.
func (s *transcript) await(done <-chan struct{}, words ...string) (string, bool) {
	for ended := false; ; {
		text, grown := s.look()
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

// process is a program that goes on, until the test's end at the latest.
type process struct {
	cmd  *exec.Cmd
	log  *transcript
	done chan struct{} // closed once it has ended
}

func startProcess(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, log: newTranscript(), done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // the exit code says it
		close(p.done)
	}()
	t.Cleanup(p.kill)
	return p
}

// kill ends the process and waits for it. One that has ended is left alone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// end sends a signal, waits, and returns how it ended.
func (p *process) end(t testing.TB, s os.Signal) result {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	<-p.done
	return p.result()
}

func (p *process) result() result {
	name := strings.TrimPrefix(p.cmd.Path, program("")+"/")
	return result{what: name, code: p.cmd.ProcessState.ExitCode(), stderr: p.log.String()}
}
