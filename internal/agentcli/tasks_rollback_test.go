package agentcli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/retain"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/task"
)

// quiet takes what a task says.
type quiet struct{ io.Writer }

func (quiet) Progress(int, string) {}

// aRollback is a node whose rollbacks are done by its store alone, and a journal of tasks.
type aRollback struct {
	t        *testing.T
	handlers taskHandlers
	node     *aNode
	// cut has the command die before it has said anything.
	cut bool
	ran []string
}

func newARollback(t *testing.T) *aRollback {
	t.Helper()
	o, m := newOutside(t)
	o.stateDir = pastOf(t, 4)
	r := &aRollback{t: t, node: newANode(t, o.stateDir, 4)}
	o.runDir = r.node.run
	m.run = r.run
	r.handlers = taskHandlers{outside: o, stateDir: o.stateDir, root: r.node.root, notes: r.journal()}
	return r
}

func (r *aRollback) journal() *task.Journal {
	r.t.Helper()
	j, err := task.OpenJournal(filepath.Join(r.node.state, tasksDir), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { j.Close() })
	return j
}

// run goes back as the command does: without a number to the last good one before.
func (r *aRollback) run(ctx context.Context, p systemd.Program) (int, error) {
	at := slices.Index(p.Args, "--")
	id, args := p.Args[at-1], p.Args[at+1:]
	args = args[:slices.Index(args, "--output")]
	r.ran = append(r.ran, strings.Join(args[3:], " "))
	st, err := store.Open(r.node.state, store.Options{})
	if err != nil {
		return 0, err
	}
	defer st.Close()
	var to uint64
	if _, err := fmt.Sscan(args[len(args)-1], &to); err != nil {
		in, _, err := retain.Read(st)
		if err != nil {
			return 0, err
		}
		in.Running = r.handlers.running()
		to = retain.Back(in)
	}
	g, err := retain.Renew(ctx, st, to, time.Now())
	if err == nil {
		err = st.Pass(g.Number, time.Now(), nil)
	}
	if err != nil {
		return 0, err
	}
	r.runs(g.Number)
	if r.cut {
		return 0, errors.New("the power is gone")
	}
	return says(r.t, taskAnswer{Task: id, Result: json.RawMessage(`{"outcome":"live"}`)})(ctx, p)
}

func (r *aRollback) runs(n uint64) {
	r.node.put(boot.FactsName, map[string]any{"generation": n, "state_dir": r.node.state})
}

// root is the root digest of what runs.
func (r *aRollback) root() string {
	r.t.Helper()
	return r.rootOf(r.handlers.running())
}

func (r *aRollback) rootOf(n uint64) string {
	r.t.Helper()
	st, err := store.Open(r.node.state, store.Options{ReadOnly: true})
	if err != nil {
		r.t.Fatal(err)
	}
	defer st.Close()
	g, err := st.Generation(n)
	if err != nil {
		r.t.Fatal(err)
	}
	return g.RootDigest.String()
}

// TestRollbackIsDoneOnce: a rollback to "the one before" that is begun again goes no further, and one that was done is.
func TestRollbackIsDoneOnce(t *testing.T) {
	r := newARollback(t)
	r.cut = true
	out := quiet{io.Discard}
	job := task.Task{ID: "t1", Kind: nodeapi.TaskRollback, Attempt: 1, Run: 1}
	if _, err := r.handlers.rollback(t.Context(), job, out); err == nil {
		t.Fatal("the power wasn't cut")
	}
	if r.root() != r.rootOf(3) {
		t.Fatal("it went elsewhere than to generation 3")
	}
	// Another agent begins it again, of which it isn't known that it was done.
	r.handlers.notes, r.cut = r.journal(), false
	job.Run, job.Attempt = 2, 2
	result, err := r.handlers.rollback(t.Context(), job, out)
	if err != nil || len(r.ran) != 1 || r.root() != r.rootOf(3) {
		t.Fatalf("%v, it was run %q", err, r.ran)
	}
	if text, err := json.Marshal(result.Data); err != nil || string(text) != `{"outcome":"in step","generation":5,"rollback_to":3}` {
		t.Errorf("%s, %v", text, err)
	}
	// The word of a command that was told to end is none of what it came to.
	if _, err := says(t, taskAnswer{Task: "t1", Code: cli.ExitPartial, Interrupted: true})(t.Context(), systemd.Program{Output: filepath.Join(r.node.run, answerOf(taskUnit))}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.handlers.rollback(t.Context(), job, out); err != nil || len(r.ran) != 1 {
		t.Errorf("%v, it was run %q", err, r.ran)
	}
	// One that came to nothing is done the second time: to the same generation.
	r.runs(4)
	if _, err := r.handlers.rollback(t.Context(), job, out); err != nil || r.ran[len(r.ran)-1] != "3" || r.root() != r.rootOf(3) {
		t.Errorf("%v, it was run %q", err, r.ran)
	}
	// What waits to be confirmed is the command's to settle.
	r.node.put(change.ConfirmName, map[string]any{})
	r.node.waits(r.handlers.running(), time.Minute)
	n := len(r.ran)
	job.ID, job.Run = "t2", 1
	if _, err := r.handlers.rollback(t.Context(), job, out); task.CodeOf(err) != nodeapi.FailInterrupted || len(r.ran) != n {
		t.Errorf("a rollback that another disk has begun: %v, %q", err, r.ran[n:])
	}
	job.Options = json.RawMessage(`{"generation":3}`)
	if _, err := r.handlers.rollback(t.Context(), job, out); err != nil || len(r.ran) != n+1 {
		t.Errorf("%v, %q", err, r.ran[n:])
	}
}
