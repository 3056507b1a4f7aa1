package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/event"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/runtime"
	"github.com/powernode/powernode-agent/internal/secret"
	"github.com/powernode/powernode-agent/internal/signedtime"
	"github.com/powernode/powernode-agent/internal/task"
)

// told is how many events a node puts into its queue beside the audit records.
const told = 30

// node is the agent's side: what `powernode-agent enroll` and its service do, without a machine.
type node struct {
	t       testing.TB
	dir     string
	clock   *signedtime.Clock
	http    nodehttp.Options
	keeper  *enroll.Keeper
	client  *nodeclient.Client
	journal *task.Journal
	queue   *event.Queue
	service *runtime.Service
	log     *slog.Logger

	mu     sync.Mutex
	runs   map[nodeapi.TaskKind]int
	acked  time.Time // the last heartbeat that was acknowledged
	synced time.Time // the last time that the node came in step
	boot   bool      // the platform knows of the boot
}

func newNode(t testing.TB, dir string, dial func() nodehttp.Options, log *slog.Logger, wrongBy time.Duration) *node {
	n := &node{t: t, dir: dir, http: dial(), log: log, runs: map[nodeapi.TaskKind]int{}}
	begun := time.Now()
	n.clock = signedtime.Open(filepath.Join(dir, "clock"), signedtime.Options{
		Wall: func() time.Time { return time.Now().Add(wrongBy) }, Elapsed: func() time.Duration { return time.Since(begun) },
	})
	return n
}

func (n *node) options() enroll.Options {
	return enroll.Options{Dir: filepath.Join(n.dir, "pki"), Clock: n.clock, AgentVersion: "v1", Architecture: "amd64", DMIUUID: "dmi", HTTP: n.http, Log: n.log}
}

// enroll enrolls the node, in as many attempts as a unit that is begun again every half minute needs.
func (n *node) enroll(b enroll.Bootstrap) bool {
	o := n.options()
	o.Discover = func(context.Context) (enroll.Bootstrap, error) { return b, nil }
	o.Backoff.Elapsed = 2 * time.Minute
	for range 100 {
		_, _, err := enroll.Ensure(context.Background(), o)
		if err == nil {
			n.keeper = enroll.NewKeeper(n.options())
			return true
		}
		n.log.Warn("enroll", "error", err)
		time.Sleep(30 * time.Second)
	}
	n.t.Error("the node doesn't enroll")
	return false
}

// again does something until it succeeds.
func (n *node) again(what string, do func(context.Context) error) bool {
	for range 100 {
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
		err := do(ctx)
		cancel()
		if err == nil {
			return true
		}
		n.log.Warn(what, "error", err)
		time.Sleep(30 * time.Second)
	}
	n.t.Errorf("%s: it never succeeds", what)
	return false
}

// serve runs the service until stop.
func (n *node) serve(seed uint64) (stop func(), err error) {
	http := n.http
	http.Now = n.keeper.Now
	if n.client, err = nodeclient.New(nodeclient.Config{Credentials: n.keeper, HTTP: http, Prepare: n.keeper.Prepare, Heard: n.keeper.Heard}); err != nil {
		return nil, err
	}
	if n.journal, err = task.OpenJournal(filepath.Join(n.dir, "tasks"), nil); err != nil {
		return nil, err
	}
	if n.queue, err = event.Open(filepath.Join(n.dir, "events"), event.Options{}); err != nil {
		return nil, err
	}
	for i := range told {
		if err := n.queue.Put(event.Event{Kind: "test.told", Text: fmt.Sprint("event ", i)}); err != nil {
			return nil, err
		}
	}
	var chance sync.Mutex
	numbers := rand.New(rand.NewPCG(seed, 1))
	random := func() float64 {
		chance.Lock()
		defer chance.Unlock()
		return numbers.Float64()
	}
	audit := runtime.AuditTasks(n.queue.Put, nil, n.log)
	tasks := runtime.NewTasks(runtime.TasksConfig{
		Platform: n.client, Journal: n.journal, Handlers: n.handlers(), Boot: "boot", Log: n.log, Rand: random,
		Told: func(r task.Record) {
			audit(r)
			if r.Phase == task.Done {
				n.service.Beat()
			}
		},
	})
	sync := runtime.NewReconcile(runtime.ReconcileConfig{Do: n.inStep, Log: n.log, Rand: random})
	n.service = runtime.New(runtime.Config{
		Platform: n.client, State: n, AgentVersion: "v1", Architecture: "amd64", Rand: random, Log: n.log, Drain: 12 * time.Second,
		Certificate: runtime.NewCertificate(n.keeper, n.log),
		Beside: []runtime.Loop{
			tasks, sync,
			runtime.Events{Queue: n.queue, Platform: n.client, Log: n.log, Rand: random},
			runtime.BootReports{Source: n, Platform: n.client, Log: n.log, Rand: random},
		},
		Heard: func(a *nodeapi.HeartbeatResponse) {
			n.mu.Lock()
			n.acked = time.Now()
			n.mu.Unlock()
			if a.TasksWaiting {
				tasks.Wake()
			}
			sync.Answered(a)
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.service.Run(ctx) }()
	return func() {
		cancel()
		n.client.Close()
		if err := errors.Join(<-ended, n.journal.Close(), n.queue.Close()); err != nil {
			n.t.Error(err)
		}
		n.client.Close()
	}, nil
}

// handlers are of one kind for each way to do a task; none is for a kind that the agent doesn't know.
func (n *node) handlers() []task.Handler {
	ran := func(k nodeapi.TaskKind) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.runs[k]++
	}
	work := func(d time.Duration) func(context.Context, task.Task, task.Out) (task.Result, error) {
		return func(ctx context.Context, t task.Task, out task.Out) (task.Result, error) {
			ran(t.Kind)
			for i := range 100 {
				fmt.Fprintf(out, "step %d of %s: ☃\n", i, t.Kind)
			}
			out.Progress(50, "half way")
			select {
			case <-ctx.Done():
				return task.Result{}, context.Cause(ctx)
			case <-time.After(d):
			}
			fmt.Fprintln(out, "the end")
			return task.Result{Data: map[string]int{"steps": 100}}, nil
		}
	}
	return []task.Handler{
		{Kind: nodeapi.TaskGC, Again: task.Idempotent, Run: work(50 * time.Second)},
		{Kind: nodeapi.TaskInit, Again: task.AtMostOnce, Run: work(30 * time.Second)},
		{Kind: nodeapi.TaskIntrospect, Again: task.Idempotent, Run: work(time.Second)},
	}
}

// inStep reads what the node is to run, and how it is to be set up.
func (n *node) inStep(ctx context.Context) (string, error) {
	list, err := n.client.Modules(ctx)
	if err != nil {
		return "", err
	}
	if len(list.Modules) != 1 || list.Modules[0].Name != "nginx" {
		n.t.Errorf("the node is to run %+v", list.Modules)
		return "", errors.New("it is the wrong list")
	}
	if _, err := n.client.Module(ctx, list.Modules[0].ID); err != nil {
		return "", err
	}
	config, err := n.client.Config(ctx)
	if err != nil {
		return "", err
	}
	if config.Digest == "" {
		n.t.Error("the node was told of another configuration than the platform has")
	}
	n.mu.Lock()
	n.synced = time.Now()
	n.mu.Unlock()
	return config.Digest, nil
}

// State implements runtime.StateSource.
func (n *node) State(context.Context) (runtime.State, error) {
	return runtime.State{Mount: nodeapi.MountMounted, Level: "checked"}, nil
}

// Pending implements runtime.BootSource.
func (n *node) Pending() ([]nodeapi.BootReport, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.boot {
		return nil, nil
	}
	return []nodeapi.BootReport{{BootID: "boot", Number: 1, AgentVersion: "v1", BegunAt: n.keeper.Now().UTC(), Outcome: nodeapi.BootHandedOver, Stages: []nodeapi.BootStage{}}}, nil
}

// Acknowledged implements runtime.BootSource.
func (n *node) Acknowledged(nodeapi.BootReport) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.boot = true
	return nil
}

func (n *node) bootstrap(url, ca, token string) enroll.Bootstrap {
	return enroll.Bootstrap{PlatformURL: url, CAPEM: []byte(ca), Token: secret.New(token)}
}
