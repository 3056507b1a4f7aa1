package runtime_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/event"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/runtime"
	"github.com/powernode/powernode-agent/internal/task"
)

// credentials are those that a node has in a test.
type credentials struct{ m *nodehttp.Material }

func (c credentials) Material() (*nodehttp.Material, error) { return c.m, nil }

// client returns the client of a node.
func client(t testing.TB, p *platformtest.Platform, node *platformtest.Node) *nodeclient.Client {
	t.Helper()
	block, _ := pem.Decode([]byte(p.Config.CAPEM))
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	m := &nodehttp.Material{PlatformURL: p.URL, CAs: []*x509.Certificate{ca}, Certificate: &node.TLS}
	c, err := nodeclient.New(nodeclient.Config{Credentials: credentials{m}, HTTP: nodehttp.Options{Now: p.Clock.Now}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// serve runs the loops of tasks and events of a node until stop.
func serve(t testing.TB, c *nodeclient.Client, dir string, handlers ...task.Handler) (stop func()) {
	t.Helper()
	j, err := task.OpenJournal(dir+"/tasks", nil)
	if err != nil {
		t.Fatal(err)
	}
	q, err := event.Open(dir+"/events", event.Options{})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	tasks := runtime.NewTasks(runtime.TasksConfig{Platform: c, Journal: j, Handlers: handlers, Boot: "boot", Told: runtime.AuditTasks(q.Put, nil, log), Log: log})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{}, 2)
	for _, l := range []runtime.Loop{tasks, runtime.Events{Queue: q, Platform: c, Log: log}} {
		go func() { l.Run(ctx, func(time.Duration) {}); ended <- struct{}{} }()
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		<-ended
		<-ended
		j.Close()
		q.Close()
	}
	t.Cleanup(stop)
	return stop
}

// ended waits until a task has come to its end.
func ended(t testing.TB, p *platformtest.Platform, id string) operatorapi.TaskDetail {
	t.Helper()
	for {
		shown, err := p.Operator.Task(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if nodeapi.TaskState(shown.Task.State).Ended() {
			return shown
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestRealPlatform: tasks and events go the whole way between the agent's loops and a real platform, over TLS.
func TestRealPlatform(t *testing.T) {
	p := platformtest.Start(t)
	node := p.Enroll("web-1", "amd64")
	dir := t.TempDir()
	var runs atomic.Int64
	restarted, waits := make(chan struct{}, 1), make(chan struct{}, 1)
	handlers := []task.Handler{
		{Kind: nodeapi.TaskGC, Again: task.Idempotent, Run: func(_ context.Context, t task.Task, out task.Out) (task.Result, error) {
			runs.Add(1)
			for i := range 3000 {
				fmt.Fprintf(out, "removing object %d: ☃\n", i)
			}
			out.Progress(100, "collected")
			return task.Result{Data: t.Options}, nil
		}},
		{Kind: nodeapi.TaskInit, Run: func(ctx context.Context, _ task.Task, out task.Out) (task.Result, error) {
			out.Progress(10, "waits to be cancelled")
			waits <- struct{}{}
			<-ctx.Done()
			return task.Result{}, context.Cause(ctx)
		}},
		{Kind: nodeapi.TaskReboot, Run: func(context.Context, task.Task, task.Out) (task.Result, error) {
			return task.Result{Restart: func(context.Context) error { restarted <- struct{}{}; return nil }}, nil
		}},
	}
	stop := serve(t, client(t, p, node), dir, handlers...)
	ask := func(kind, options string) string {
		t.Helper()
		made, err := p.Operator.CreateTask(t.Context(), "web-1", operatorapi.TaskCreate{Kind: kind, Options: json.RawMessage(options)})
		if err != nil {
			t.Fatal(err)
		}
		return made.ID
	}
	got := ended(t, p, ask("gc", `{"keep":4}`))
	if got.Task.State != "complete" || string(got.Result) != `{"keep":4}` || !strings.HasSuffix(got.Output, "removing object 2999: ☃\n") || strings.Contains(got.Output, "left out") ||
		strings.Count(got.Output, "\n") != 3000 || runs.Load() != 1 {
		t.Errorf("%+v, %s, %d bytes of output ending in %q, run %d times", got.Task, got.Result, len(got.Output), got.Output[max(0, len(got.Output)-100):], runs.Load())
	}
	// One of class root after the other.
	var ids []string
	for range 10 {
		ids = append(ids, ask("gc", `{}`))
	}
	for _, id := range ids {
		if got := ended(t, p, id); got.Task.State != "complete" || got.Task.Attempt != 1 {
			t.Errorf("%+v", got.Task)
		}
	}
	unknown := ended(t, p, ask("rotate", `{}`))
	if unknown.Task.State != "failed" || unknown.Task.Code != string(nodeapi.FailUnknownKind) {
		t.Errorf("%+v", unknown.Task)
	}
	// The agent ends in the middle, and goes on. The platform hears that it is begun just before.
	id := ask("init", `{"action":"restart","modules":["nginx"]}`)
	<-waits
	for {
		shown, err := p.Operator.Task(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if shown.Task.BegunAt != nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	stop()
	p = p.Restart()
	stop = serve(t, client(t, p, node), dir, handlers...)
	// It was told at the end, or, by a machine that is too slow for that, at the next begin.
	if got := ended(t, p, id); got.Task.State != "failed" || got.Task.Code != string(nodeapi.FailInterrupted) {
		t.Errorf("%+v", got.Task)
	}
	reboot := ask("reboot", `{}`)
	<-restarted
	if shown, err := p.Operator.Task(t.Context(), reboot); err != nil || shown.Task.Message != "the machine restarts" || shown.Task.State != "leased" {
		t.Errorf("%+v, %v", shown.Task, err)
	}
	stop()
	// The audit records have arrived, or are kept for the next start; or both, where the end cut the platform's answer off.
	records := map[string]bool{}
	list, err := p.Operator.NodeEvents(t.Context(), operatorclient.Listing{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list.Events {
		if e.Kind == event.AuditKind {
			records[e.ID] = true
		}
	}
	arrived := len(records)
	q, err := event.Open(dir+"/events", event.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	b, err := q.Next(100)
	for _, e := range b.Events {
		records[e.ID] = true
	}
	if err != nil || arrived == 0 || len(records) != 26 {
		t.Errorf("%d audit records on the platform, %d on the node, %d in all, %v", arrived, len(b.Events), len(records), err)
	}
}

// BenchmarkDispatch measures the time from a task's creation by the operator to the begin of its handler, and to its end on the
// platform.
func BenchmarkDispatch(b *testing.B) {
	p := platformtest.Start(b)
	node := p.Enroll("web-1", "amd64")
	begun := make(chan time.Time, 1)
	stop := serve(b, client(b, p, node), b.TempDir(), task.Handler{
		Kind: nodeapi.TaskIntrospect, Again: task.Idempotent, Run: func(_ context.Context, _ task.Task, out task.Out) (task.Result, error) {
			begun <- time.Now()
			_, err := io.WriteString(out, "seen\n")
			return task.Result{}, err
		},
	})
	defer stop()
	time.Sleep(1500 * time.Millisecond) // the loop's first call
	var waited time.Duration
	for b.Loop() {
		start := time.Now()
		made, err := p.Operator.CreateTask(b.Context(), "web-1", operatorapi.TaskCreate{Kind: "introspect"})
		if err != nil {
			b.Fatal(err)
		}
		waited += (<-begun).Sub(start)
		ended(b, p, made.ID)
	}
	b.ReportMetric(float64(waited.Microseconds())/1000/float64(b.N), "ms/begun")
}
