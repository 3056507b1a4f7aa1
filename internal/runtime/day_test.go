package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/event"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/health"
	units "github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/runtime/metrics"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/task"
	"github.com/powernode/powernode-agent/internal/trial"
)

// descriptors counts the open ones of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no procfs: ", err)
	}
	return len(entries) - 1
}

// hub is the platform of heartbeats beside that of tasks, which says when it is down.
type hub struct {
	tasking *tasking
	mu      sync.Mutex
	// list counts the changes of the node's list; synced is what the node has read.
	list, synced, syncs int
	beats               int
}

func (h *hub) with(do func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	do()
}

// down is what calls get now, nil for an answer.
func (h *hub) down() (err error) {
	h.tasking.with(func() { err = h.tasking.down })
	return err
}

func (h *hub) Heartbeat(_ context.Context, _ nodeapi.Heartbeat) (*nodeapi.HeartbeatResponse, error) {
	if err := h.down(); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.beats++
	return &nodeapi.HeartbeatResponse{
		Acknowledged: true, NextPollSeconds: 30, ServerTime: time.Now(), Reconcile: h.list != h.synced, ConfigDigest: "c", TasksWaiting: true,
	}, nil
}

// sync is what the service has a unit do.
func (h *hub) sync(context.Context) (string, error) {
	h.with(func() { h.syncs++ })
	time.Sleep(300 * time.Millisecond)
	if err := h.down(); err != nil {
		return "", err
	}
	h.with(func() { h.synced = h.list })
	time.Sleep(2 * time.Second)
	return "c", nil
}

// silence is a listener that nobody calls.
type silence struct {
	net.Listener
	closed chan struct{}
}

func (q silence) Accept() (net.Conn, error) { <-q.closed; return nil, net.ErrClosed }
func (q silence) Close() error              { close(q.closed); return nil }

// day is a service with every loop that there is, over a platform and a machine of the test's.
type day struct {
	machine *machine
	proc    string
	tasking *tasking
	hub     *hub
	keeper  *keeper
	boots   *bootLog
	queue   *event.Queue
	systemd *manager
	log     *slog.Logger
	state   string // the directory of record
	run     string // that of the boot
	stop    func()

	mu       sync.Mutex
	verdicts int // gates that came to an end
}

// generation puts a generation on trial into the directory of record, and returns its number.
func (d *day) generation(t *testing.T) (number uint64) {
	t.Helper()
	s, err := store.Open(d.state, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	image := []byte("root")
	if number, err = s.PutGeneration(store.Generation{RootDigest: fsverity.SumBytes(image)}, bytes.NewReader(image)); err == nil {
		err = s.Stage(number)
	}
	if err != nil {
		t.Fatal(err)
	}
	in, err := trial.Read(s)
	if err == nil {
		err = s.PutTrial(trial.Order(in)[0].Begin(d.keeper.Now(), "boot"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return number
}

// gate is a real one that counts its verdicts.
func (d *day) gate(generation uint64) Gate {
	g := health.New(health.Config{
		Settings: health.Settings{Trial: true, Attempt: 1, Attempts: 3, PlatformReached: true, TimeoutSeconds: 3600}, Generation: generation, StateDir: d.state, RunDir: d.run, Every: 20 * time.Second,
		System:  func(context.Context) (units.System, error) { return units.System{State: "running"}, nil },
		Restart: func(context.Context) error { return errors.New("this machine doesn't restart") }, Uptime: func() time.Duration { return 0 }, Now: d.keeper.Now, Log: d.log,
	})
	return gate(func(ctx context.Context, reached func() bool, alive func(time.Duration)) {
		g.Run(ctx, reached, alive)
		if ctx.Err() == nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.verdicts++
		}
	})
}

// start starts the service, as the command puts it together.
func (d *day) start(t *testing.T) {
	t.Helper()
	j, err := task.OpenJournal(filepath.Join(d.machine.dir, "tasks"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var service *Service
	audit := AuditTasks(d.queue.Put, nil, d.log)
	tasks := NewTasks(TasksConfig{Platform: d.tasking, Journal: j, Handlers: d.machine.handlers(), Boot: "boot", Log: d.log, Told: func(r task.Record) {
		audit(r)
		service.Say()
		if r.Phase == task.Done {
			service.Beat()
		}
	}})
	var reconcile *Reconcile
	reconcile = NewReconcile(ReconcileConfig{Do: d.hub.sync, Log: d.log, Told: func() {
		service.Say()
		if !reconcile.Busy() {
			service.Beat()
		}
	}})
	boots := d.boots.loop(new(strings.Builder))
	file := func(context.Context) (bool, error) {
		dir, err := durable.OpenDir(d.run, nil)
		if err != nil {
			return false, err
		}
		defer dir.Close()
		return false, metrics.WriteFile(dir, "powernode.prom", nil)
	}
	confirm := func(context.Context) (bool, error) {
		_, waits, err := change.Waiting(d.run)
		if waits || err != nil {
			t.Errorf("something waits: %t, %v", waits, err)
		}
		return false, err
	}
	service = New(Config{
		Platform: d.hub, State: &root{}, Proc: d.proc, Sys: d.proc, Drain: 10 * time.Second, Log: d.log, Notifier: d.systemd, Watchdog: 3 * time.Minute,
		Gate: d.gate(d.generation(t)), Certificate: NewCertificate(d.keeper, d.log),
		Heard: func(a *nodeapi.HeartbeatResponse) {
			if a.TasksWaiting {
				tasks.Wake()
			}
			reconcile.Answered(a)
		},
		Load: func(context.Context) error { return nil }, Doing: func() []string { return nil }, Remarks: func() []string { return []string{"a remark"} },
		Beside: []Loop{
			tasks,
			Events{Queue: d.queue, Platform: d.tasking, Log: d.log},
			reconcile, boots,
			Trim{},
			Chore{Name: "finish what a live change has left", Do: confirm, Every: 10 * time.Second, Log: d.log},
			Chore{Name: "write the metrics", Do: file, Every: 10 * time.Minute, Last: true, Log: d.log},
			metrics.Server{Network: "tcp", Address: "127.0.0.1:1", Collect: func() []metrics.Metric { return nil }, Log: d.log, Listen: func(context.Context, string, string) (net.Listener, error) {
				return silence{closed: make(chan struct{})}, nil
			}},
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx) }()
	d.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}

// newDay returns the service's surroundings. The clocks of what goes by the time of day jump with the keeper's: certificates, the queue of events,
// the gate. The other loops reckon with differences of time.Now within one process, which setting the clock doesn't change.
func newDay(t *testing.T, m *machine, proc, state, run string) *day {
	t.Helper()
	d := &day{
		machine: m, proc: proc, state: state, run: run, tasking: newTasking(), boots: &bootLog{}, systemd: &manager{start: time.Now()},
		keeper: &keeper{word: enroll.Valid, begin: time.Now().Add(20*time.Minute - 77*time.Hour)}, log: slog.New(slog.NewTextHandler(m.log, nil)),
	}
	d.hub = &hub{tasking: d.tasking, list: 1}
	queue, err := event.Open(filepath.Join(m.dir, "events"), event.Options{Now: d.keeper.Now})
	if err != nil {
		t.Fatal(err)
	}
	d.queue = queue
	t.Cleanup(func() { queue.Close() })
	return d
}

// jump sets the node's clock off.
func (d *day) jump(by time.Duration) { d.keeper.set(func() { d.keeper.jump = by }) }

// down has every call to the platform fail, but for nil.
func (d *day) down(err error) {
	d.tasking.with(func() { d.tasking.down = err })
	d.boots.with(func() { d.boots.down = err })
	d.keeper.set(func() { d.keeper.fail = err })
}

// TestADay is a day of a service with all of its loops and everything that goes wrong in a year: outages, a proxy that answers in the platform's place, lost
// answers, lost leases, a service that is restarted, and a time of day that jumps by years to and fro. Nothing is lost, nothing that may be done once is done
// twice, the node is in step and its certificate in force, the watchdog always fed, and neither goroutines nor descriptors stay.
func TestADay(t *testing.T) {
	m, procDir, state, run := newMachine(t.TempDir()), proc(t), t.TempDir(), t.TempDir()
	running, open := goleak.IgnoreCurrent(), 0
	synctest.Test(t, func(t *testing.T) {
		d := newDay(t, m, procDir, state, run)
		open = descriptors(t)
		d.start(t)
		kinds := []nodeapi.TaskKind{nodeapi.TaskGC, nodeapi.TaskAttach, nodeapi.TaskIntrospect}
		lengths := []string{"50ms", "20s", "3m"}
		var all, withheld []*offer
		at := map[string]int{} // descriptors by the time of day
		for minute := range 24 * 60 {
			if minute%5 == 0 {
				all = append(all, d.tasking.add(fmt.Sprintf("t%d-%s", minute, lengths[minute/5%len(lengths)]), kinds[minute/15%len(kinds)], ""))
			}
			if minute%40 == 7 {
				d.hub.with(func() { d.hub.list++ })
			}
			d.tasking.with(func() { d.tasking.lose = 7 })
			switch minute % 180 {
			case 60:
				d.down(away(503, 0))
			case 70:
				d.down(notOurs(400))
			case 75:
				d.down(away(429, 2*time.Minute))
			case 85:
				d.down(nil)
			case 26, 101, 116:
				// What runs is given again at once, or only after a while.
				d.tasking.with(func() {
					for _, o := range d.tasking.offers {
						if o.state != nodeapi.TaskLeased {
							continue
						}
						d.tasking.takeBack(o)
						if minute%180 != 26 {
							o.state, withheld = nodeapi.TaskCancelled, append(withheld, o)
						}
					}
				})
			case 103, 118:
				d.tasking.with(func() {
					for _, o := range withheld {
						o.state = nodeapi.TaskPending
					}
					withheld = nil
				})
			}
			switch minute % 240 {
			case 120:
				d.stop()
				d.boots.with(func() {
					d.boots.pending = append(d.boots.pending, nodeapi.BootReport{BootID: fmt.Sprint("boot-", minute)})
				})
				d.start(t)
			case 45, 65:
				d.jump(10 * 365 * 24 * time.Hour)
			case 55, 90:
				d.jump(-7 * time.Hour)
			case 150:
				d.jump(0)
			case 30:
				synctest.Wait()
				at[fmt.Sprint(minute/240)] = descriptors(t)
			}
			time.Sleep(time.Minute)
		}
		d.tasking.with(func() { d.tasking.lose = 0 })
		d.down(nil)
		d.jump(0)
		time.Sleep(time.Hour)
		for when, n := range at {
			if n > at["0"] {
				t.Errorf("%d descriptors in the first round, %d in round %s", at["0"], n, when)
			}
		}
		interrupted := 0
		d.tasking.with(func() {
			for _, o := range all {
				switch {
				case o.Kind == nodeapi.TaskAttach && m.runs[o.ID] > 1:
					t.Errorf("%s was done %d times", o.ID, m.runs[o.ID])
				case o.Kind == nodeapi.TaskAttach && o.code == nodeapi.FailInterrupted:
					interrupted++
				case o.state != nodeapi.TaskComplete || m.runs[o.ID] == 0 || o.result == "":
					t.Errorf("run %d times: %+v", m.runs[o.ID], o)
				}
			}
			// Each outcome, and each run's beginning, has its audit record: once.
			ends := map[string]int{}
			for _, e := range d.tasking.events {
				if e.Kind == event.AuditKind && e.Fields["result"] != "begun" {
					ends[e.Fields["task"]]++
				}
				if e.Kind == event.DroppedKind {
					t.Errorf("given up: %+v", e)
				}
			}
			for _, o := range all {
				if ends[o.ID] != 1 {
					t.Errorf("%d audit records of the end of %s", ends[o.ID], o.ID)
				}
			}
		})
		if !m.wasToldToEnd(task.ErrLeaseLost) {
			t.Error("no work was told to end since its lease was lost")
		}
		if left, err := d.queue.Next(100); err != nil || len(left.Events) > 0 {
			t.Errorf("left in the queue: %+v, %v", left, err)
		}
		d.hub.with(func() {
			if d.hub.synced != d.hub.list || d.hub.syncs > 400 {
				t.Errorf("in step with list %d of %d, in %d attempts", d.hub.synced, d.hub.list, d.hub.syncs)
			}
			if d.hub.beats < 25*60 || d.hub.beats > 25*60*6 {
				t.Errorf("%d heartbeats", d.hub.beats)
			}
		})
		if s, err := d.keeper.Status(); err != nil || s.Situation != enroll.Valid {
			t.Errorf("the certificate is %v, %v", s.Situation, err)
		}
		tried := d.keeper.tried()
		if n := strings.Count(tried, " "); n > 200 || !strings.Contains(tried, "rotate") {
			t.Errorf("%d attempts at certificates: %s", n, tried)
		}
		d.boots.with(func() {
			if len(d.boots.told) != 6 || len(d.boots.pending) > 0 {
				t.Errorf("boots told: %v", d.boots.told)
			}
		})
		d.mu.Lock()
		if d.verdicts == 0 {
			t.Error("no gate came to a verdict")
		}
		d.mu.Unlock()
		if n, last := d.systemd.has("WATCHDOG=1"); last < 25*time.Hour-3*time.Minute || n < 25*20 || strings.Contains(m.log.String(), "stuck") || strings.Contains(m.log.String(), "panicked") {
			t.Errorf("the watchdog heard %d times, the last time after %s", n, last)
		}
		t.Logf("%d tasks, %d of them interrupted, %d leases, %d events, %d heartbeats, %d syncs, %d verdicts, certificates: %s",
			len(all), interrupted, d.tasking.leases, len(d.tasking.events), d.hub.beats, d.hub.syncs, d.verdicts, tried)
		d.stop()
		synctest.Wait()
		if n := descriptors(t); n > open {
			t.Errorf("%d descriptors before, %d after", open, n)
		}
	})
	if err := goleak.Find(running); err != nil {
		t.Error(err)
	}
}

// TestLongLife: a service that nothing happens to is alive after days, for the watchdog too, whichever of its loops have nothing to do.
func TestLongLife(t *testing.T) {
	m, procDir, state, run := newMachine(t.TempDir()), proc(t), t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDay(t, m, procDir, state, run)
		d.start(t)
		time.Sleep(50 * time.Hour) // no loop promises its next sign of life for longer than a day
		if _, last := d.systemd.has("WATCHDOG=1"); last < 50*time.Hour-3*time.Minute {
			t.Errorf("the watchdog heard of life after %s for the last time", last)
		}
		d.stop()
	})
	if strings.Contains(m.log.String(), "stuck") {
		t.Errorf("the log:\n%s", m.log)
	}
}
