package agentcli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/reconcile"
)

// TestDoTask: a command's own words are in the answer, and told meanwhile.
func TestDoTask(t *testing.T) {
	var said, words strings.Builder
	app := &cli.App{In: strings.NewReader(""), Out: &said, Err: &said, Getenv: func(string) string { return "" }}
	if a := doTask(t.Context(), app, "t1", []string{"version", "--output", "json"}, &words); a.Code != 0 || a.Task != "t1" || !json.Valid(a.Result) || a.Error != nil {
		t.Errorf("%+v", a)
	}
	if words.String() != "powernode-agent version --output json\n" {
		t.Errorf("%q", words.String())
	}
	words.Reset()
	a := doTask(t.Context(), app, "t1", []string{"detach", "nginx", "--state=" + t.TempDir() + "/none", "--trust-policy=/none", "--output", "json"}, &words)
	if a.Code == 0 || a.Error == nil || a.Error.Message == "" || a.Error.Kind == "" || len(a.Result) > 0 {
		t.Errorf("%+v", a)
	}
	if !strings.Contains(words.String(), "\nerror: "+a.Error.Message) || strings.Contains(words.String(), "{") || a.Interrupted {
		t.Errorf("%+v, %q", a, words.String())
	}
	// What was told to end, and isn't done, may have come to something else; what is done all the same is.
	ended, end := context.WithCancel(t.Context())
	end()
	if a := doTask(ended, app, "t1", []string{"detach", "nginx", "--state=" + t.TempDir() + "/none", "--trust-policy=/none", "--output", "json"}, io.Discard); a.Code == 0 || !a.Interrupted {
		t.Errorf("%+v", a)
	}
	if a := doTask(ended, app, "t1", []string{"version", "--output", "json"}, io.Discard); a.Code != 0 || a.Interrupted {
		t.Errorf("%+v", a)
	}
}

// TestPatiently: a task waits for who has the node for a moment; a person is told.
func TestPatiently(t *testing.T) {
	dir := pastOf(t, 3)
	lock, err := reconcile.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if code, text := runWhole(t.Context(), t, "gc", "--state="+dir); code == 0 || !strings.Contains(text, "locked") {
		t.Errorf("%d: %s", code, text)
	}
	time.AfterFunc(100*time.Millisecond, func() { _ = lock.Unlock() })
	if code, text := runWhole(forTask(t.Context()), t, "gc", "--state="+dir); code != 0 {
		t.Errorf("%d: %s", code, text)
	}
}

// TestPrinted: whatever a command prints, its answer is what the platform takes, and what the service reads.
func TestPrinted(t *testing.T) {
	long := func(n int) string { return strings.Repeat("<", n) }
	for name, c := range map[string]struct{ printed, want string }{
		"small":       {`{"a": 1}`, `{"a":1}`},
		"a list":      {`[1]`, `[1]`},
		"no document": {`it went well`, ``},
		"a long plan": {`{"outcome":"live","plan":"` + long(nodeapi.MaxTaskResult) + `"}`, `{"left_out":["plan"],"outcome":"live"}`},
		"what nobody has named": {
			`{"outcome":"live","plan":"` + long(2000) + `","x":"` + long(nodeapi.MaxTaskResult) + `"}`, `{"left_out":["plan","x"],"outcome":"live"}`,
		},
		"a long list": {`["` + long(nodeapi.MaxTaskResult) + `"]`, `{"left_out":["the result, which has 65540 bytes: the node doesn't keep that many"]}`},
		"without end": {`{"x":"` + long(maxPrinted) + `"}`, `{"left_out":["the result, which has 16777224 bytes: the node doesn't keep that many"]}`},
		"many fields": {"{" + strings.TrimSuffix(manyFields(20000), ",") + "}", "*"},
	} {
		p := &printed{most: maxPrinted}
		for rest := c.printed; rest != ""; {
			n := min(len(rest), 100_000)
			if m, err := p.Write([]byte(rest[:n])); m != n || err != nil {
				t.Fatal(m, err)
			}
			rest = rest[n:]
		}
		got := p.result()
		if c.want != "*" && string(got) != c.want || len(got) > nodeapi.MaxTaskResult || p.Len() > maxPrinted {
			t.Errorf("%s: %.200s, of %d bytes", name, got, len(got))
		}
	}
	e := (&taskError{Message: strings.Repeat("ü", maxTaskError), Hint: strings.Repeat("\x00", 2*maxTaskError), Kind: "refuse"}).cut()
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(taskAnswer{Error: e, Result: json.RawMessage(`"` + long(nodeapi.MaxTaskResult-2) + `"`)}); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 2*answerMax || e.Kind != "refuse" || !strings.HasSuffix(e.Message, "ü…") {
		t.Errorf("%d bytes", b.Len())
	}
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"f%d":%d,`, i, i)
	}
	return b.String()
}

// TestWords: what a command says is read while it says it, all of it, and never more than its own.
func TestWords(t *testing.T) {
	run := t.TempDir()
	dir, err := durable.OpenDir(run, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var got bytes.Buffer
	r := &wordsReader{dir: dir, name: wordsName("task"), id: "t2"}
	r.read(&got)
	old := openWords(run, "task", "t1")
	fmt.Fprintln(old, "of another task")
	old.Close()
	r.read(&got)
	if got.Len() > 0 {
		t.Fatalf("%q", got.String())
	}
	w := openWords(run, "task", "t2")
	defer w.Close()
	var want bytes.Buffer
	both := io.MultiWriter(w, &want)
	for i := range 100 {
		fmt.Fprintln(both, i, strings.Repeat("x", 20_000))
		if i%10 == 0 {
			r.read(&got)
		}
	}
	r.read(&got)
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes of %d", got.Len(), want.Len())
	}
	size := int64(0)
	entries, err := os.ReadDir(run)
	for _, e := range entries {
		info, infoErr := e.Info()
		err = errors.Join(err, infoErr)
		if infoErr == nil {
			size += info.Size()
		}
	}
	if err != nil || len(entries) != 1 || size > maxWords+100 {
		t.Errorf("%v, %d bytes, %v", entries, size, err)
	}
	// Nobody is kept from anything because it can't be said.
	mute := openWords(filepath.Join(run, "none"), "task", "t3")
	if n, err := mute.Write([]byte("x")); n != 1 || err != nil {
		t.Error(n, err)
	}
	mute.Close()
}
