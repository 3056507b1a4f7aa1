package runtime

import (
	"bytes"
	"context"
	"encoding/json"
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

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// platform acknowledges heartbeats as a test tells it to.
type platform struct {
	mu    sync.Mutex
	beats []nodeapi.Heartbeat
	times []time.Time
	next  int
	// fail, if not nil, is what a heartbeat gets; takes is how long it takes; deaf ignores its context.
	fail  error
	takes time.Duration
	deaf  bool
	clock time.Duration // ahead of the node's
	ended int           // requests that were cancelled
}

func (p *platform) Heartbeat(ctx context.Context, hb nodeapi.Heartbeat) (*nodeapi.HeartbeatResponse, error) {
	p.mu.Lock()
	p.beats, p.times = append(p.beats, hb), append(p.times, time.Now())
	takes, done := p.takes, ctx.Done()
	if p.deaf {
		done = nil
	}
	p.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-done:
			p.mu.Lock()
			defer p.mu.Unlock()
			p.ended++
			return nil, fault.New(fault.Retry, fault.Platform, "", "send the heartbeat: %w", context.Cause(ctx))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		return nil, p.fail
	}
	return &nodeapi.HeartbeatResponse{Acknowledged: true, NextPollSeconds: p.next, ServerTime: time.Now().Add(p.clock)}, nil
}

func (p *platform) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.beats)
}

// journal is a log that can be read while it is written.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// root is a node's state.
type root struct {
	mu    sync.Mutex
	state State
	err   error
	panic bool
}

func (r *root) State(context.Context) (State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.panic {
		panic("a defect")
	}
	return r.state, r.err
}

// manager notes what systemd is told, with the time since its making.
type manager struct {
	mu    sync.Mutex
	start time.Time
	told  []string
	times []time.Duration
	err   error
}

func (m *manager) Notify(message string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told, m.times = append(m.told, message), append(m.times, time.Since(m.start))
	return m.err
}

func (m *manager) has(part string) (n int, last time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, t := range m.told {
		if strings.Contains(t, part) {
			n, last = n+1, m.times[i]
		}
	}
	return n, last
}

const bootID = "3b6f1c2a-9d7e-4f10-8a5b-1c2d3e4f5a6b"

// proc makes a procfs.
func proc(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"sys/kernel/random/boot_id": bootID + "\n", "uptime": "4711.28 9000.00\n", "loadavg": "0.12 0.08 0.01 1/234 5678\n",
		"meminfo": "MemTotal:        8000000 kB\nMemFree:          100000 kB\nMemAvailable:    3911484 kB\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// node is a service in a bubble of time of its own.
type node struct {
	platform *platform
	root     *root
	manager  *manager
	log      *journal
	config   Config
	cancel   context.CancelFunc
	ended    chan error
}

// set changes platform and root while the service runs.
func (n *node) set(alter func()) {
	n.platform.mu.Lock()
	defer n.platform.mu.Unlock()
	n.root.mu.Lock()
	defer n.root.mu.Unlock()
	alter()
}

// serve runs a service, after prepare has had its say, until stop or the end of the bubble.
func serve(t *testing.T, procDir string, prepare func(*node)) *node {
	t.Helper()
	n := &node{
		platform: &platform{next: 30}, root: &root{state: State{Mount: nodeapi.MountMounted}},
		manager: &manager{start: time.Now()}, log: &journal{}, ended: make(chan error, 1),
	}
	n.config = Config{
		Platform: n.platform, State: n.root, Proc: procDir, Sys: procDir, AgentVersion: "v1", Architecture: "arm64",
		Notifier: n.manager, Rand: func() float64 { return 0.5 }, Log: slog.New(slog.NewTextHandler(n.log, nil)),
	}
	if prepare != nil {
		prepare(n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n.cancel = cancel
	go func() { n.ended <- New(n.config).Run(ctx) }()
	t.Cleanup(cancel)
	return n
}

// stop ends the service and returns how long that took.
func (n *node) stop(t *testing.T) (time.Duration, error) {
	t.Helper()
	start := time.Now()
	n.cancel()
	err := <-n.ended
	return time.Since(start), err
}

// bubble runs f where time passes only when everything waits.
func bubble(t *testing.T, f func(t *testing.T, proc string)) {
	t.Helper()
	dir := proc(t)
	synctest.Test(t, func(t *testing.T) { f(t, dir) })
}

// TestBeat: what is asked for is told within a second of the last heartbeat, together, and not before a wait is over that a failure costs or the platform asked for.
func TestBeat(t *testing.T) {
	refused := func(status int, after time.Duration) error {
		return fault.New(fault.Retry, fault.Platform, "", "send the heartbeat: %w", &nodehttp.StatusError{Status: status, RetryAfter: after})
	}
	for name, c := range map[string]struct {
		fail        error
		beat, hurry int // heartbeats in the 20 s in which one is asked for each second
	}{
		"acknowledged":     {nil, 20, 20},
		"asked to wait":    {refused(429, 5*time.Minute), 0, 0},
		"overloaded":       {refused(503, time.Minute), 0, 0},
		"away for a while": {refused(503, 0), 0, 4},
		"refused":          {refused(401, 0), 0, 4},
	} {
		for _, hurry := range []bool{false, true} {
			bubble(t, func(t *testing.T, proc string) {
				p := &platform{}
				s := New(Config{Platform: p, State: &root{}, Proc: proc, Sys: proc, Rand: func() float64 { return 0.5 }})
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- s.Run(ctx) }()
				p.mu.Lock()
				p.fail = c.fail
				p.mu.Unlock()
				time.Sleep(5 * time.Minute) // the backoff is long by now
				if c.fail == nil {
					time.Sleep(2 * time.Second)
				}
				before := p.count()
				for range 20 {
					if hurry {
						s.Reload(ctx)
					} else {
						s.Beat()
						s.Beat()
					}
					time.Sleep(time.Second)
				}
				want := c.beat
				if hurry {
					want = c.hurry
				}
				if n := p.count() - before; n < want-1 || n > want+1 {
					t.Errorf("%s, hurried: %t: %d heartbeats, want about %d", name, hurry, n, want)
				}
				if c.fail != nil {
					// It is told by the next one, and no later than without.
					time.Sleep(6 * time.Minute)
					if n := p.count() - before; n < 1 {
						t.Errorf("%s: it isn't told at all", name)
					}
				}
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestHeartbeats(t *testing.T) {
	bubble(t, func(t *testing.T, proc string) {
		n := serve(t, proc, func(n *node) {
			n.root.state = State{
				Modules: map[string]string{"m-1": "sha256:aa"}, RootDigest: "bb", Level: "enforced", Mount: nodeapi.MountMounted, Generation: 7,
			}
		})
		time.Sleep(10*time.Minute + time.Second)
		if _, err := n.stop(t); err != nil {
			t.Error(err)
		}
		if got := n.platform.count(); got != 21 {
			t.Errorf("%d heartbeats in ten minutes at 30 s", got)
		}
		want := nodeapi.Heartbeat{
			BootID: bootID, AgentVersion: "v1", Architecture: "arm64", UptimeSeconds: 4711, ModuleDigests: map[string]string{"m-1": "sha256:aa"},
			MountState: nodeapi.MountMounted, LoadAverage: "0.12 0.08 0.01", MemoryFreeKB: 3911484, RootDigest: "bb", IntegrityLevel: "enforced", Generation: 7,
		}
		if d := cmp.Diff(want, n.platform.beats[3]); d != "" {
			t.Error(d)
		}
		if first := n.manager.told[0]; !strings.HasPrefix(first, "READY=1\n") || n.manager.times[0] != 0 {
			t.Errorf("first told: %q after %v", first, n.manager.times[0])
		}
		if k, _ := n.manager.has("READY=1"); k != 1 {
			t.Errorf("ready %d times", k)
		}
		if k, _ := n.manager.has("STATUS=Heartbeat acknowledged at "); k != 21 {
			t.Errorf("%d statuses", k)
		}
		if last := n.manager.told[len(n.manager.told)-1]; !strings.HasPrefix(last, "STOPPING=1") {
			t.Errorf("last told: %q", last)
		}
	})
}

// TestOutage has a platform that is away for a day.
func TestOutage(t *testing.T) {
	bubble(t, func(t *testing.T, proc string) {
		n := serve(t, proc, func(n *node) {
			n.platform.fail = fault.New(fault.Retry, fault.Platform, "check the network", "send the heartbeat: nothing listens there")
		})
		time.Sleep(24 * time.Hour)
		tries := n.platform.count()
		if tries < 24*30 || tries > 24*60 {
			t.Errorf("%d attempts in a day", tries)
		}
		if k, _ := n.manager.has("STATUS=No heartbeat acknowledged since "); k != tries {
			t.Errorf("%d statuses of %d failures", k, tries)
		}
		if lines := strings.Count(n.log.String(), "the heartbeat failed"); lines > 15 {
			t.Errorf("%d lines in the log", lines)
		}
		n.set(func() { n.platform.fail = nil })
		back := time.Now()
		time.Sleep(3 * time.Minute)
		if _, err := n.stop(t); err != nil {
			t.Error(err)
		}
		if at := n.platform.times[tries]; at.Sub(back) > maxRetryInterval {
			t.Errorf("back after %v", at.Sub(back))
		}
		log := n.log.String()
		if !strings.Contains(log, "first heartbeat") || !strings.Contains(log, `hint="check the network"`) {
			t.Errorf("the log:\n%s", log)
		}
	})
}

func TestRefusedAndAskedToWait(t *testing.T) {
	bubble(t, func(t *testing.T, proc string) {
		n := serve(t, proc, func(n *node) {
			n.platform.fail = fault.New(fault.Refuse, fault.Platform, "", "send the heartbeat: %w", &nodehttp.StatusError{Status: 401})
		})
		time.Sleep(24 * time.Hour)
		refused := n.platform.count()
		if refused < 24*12 || refused > 24*26 {
			t.Errorf("%d attempts in a day of refusals", refused)
		}
		n.set(func() {
			n.platform.fail = fault.New(fault.Retry, fault.Platform, "", "send the heartbeat: %w", &nodehttp.StatusError{Status: 429, RetryAfter: 200 * time.Second})
		})
		time.Sleep(time.Hour)
		n.stop(t)
		for i := refused + 2; i < len(n.platform.times); i++ {
			if d := n.platform.times[i].Sub(n.platform.times[i-1]); d < 200*time.Second {
				t.Errorf("asked to wait 200 s, waited %v", d)
			}
		}
	})
}

// TestDefectsBelow has a state that can be found out in part, one that can't be found out, and one
// whose finder panics.
func TestDefectsBelow(t *testing.T) {
	bubble(t, func(t *testing.T, proc string) {
		if err := os.Remove(filepath.Join(proc, "loadavg")); err != nil {
			t.Fatal(err)
		}
		n := serve(t, proc, func(n *node) {
			n.root.err = errors.New("the store is damaged")
			n.root.state = State{Mount: nodeapi.MountMounted, RootDigest: "bb", Level: "enforced"}
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		hb := n.platform.beats[0]
		if hb.MountState != nodeapi.MountMounted || hb.RootDigest != "bb" || hb.IntegrityLevel != "enforced" || len(hb.ModuleDigests) != 0 || hb.ModuleDigests == nil || hb.BootID != bootID || hb.LoadAverage != "" {
			t.Errorf("with a state that is known in part: %+v", hb)
		}
		known := n.root.state
		n.set(func() { n.root.state = State{} })
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		hb = n.platform.beats[n.platform.count()-1]
		if hb.MountState != nodeapi.MountUnmounted || hb.RootDigest != "" || hb.ModuleDigests == nil {
			t.Errorf("with an unknown state: %+v", hb)
		}
		n.set(func() { n.root.panic, n.root.state = true, known })
		time.Sleep(10 * time.Minute)
		before := n.platform.count()
		n.set(func() { n.root.panic, n.root.err = false, nil })
		time.Sleep(3 * time.Minute)
		n.stop(t)
		if after := n.platform.count(); after <= before || n.platform.beats[after-1].RootDigest != "bb" {
			t.Errorf("after the panics: %d heartbeats more", after-before)
		}
		log := n.log.String()
		if strings.Count(log, "the heartbeat is incomplete") != 2 || !strings.Contains(log, "the store is damaged") || !strings.Contains(log, "panic: a defect") {
			t.Errorf("the log:\n%s", log)
		}
	})
}

func TestHangingPlatform(t *testing.T) {
	bubble(t, func(t *testing.T, proc string) {
		n := serve(t, proc, func(n *node) {
			n.config.Timeout, n.config.Watchdog, n.platform.takes = 20*time.Second, time.Minute, time.Hour
		})
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if k, last := n.manager.has("WATCHDOG=1"); k != 61 || last != 30*time.Minute {
			t.Errorf("%d signs of life, the last after %v", k, last)
		}
		n.stop(t)
		if n.platform.ended < 10 {
			t.Errorf("%d heartbeats were ended by their deadline", n.platform.ended)
		}
	})
}

// TestWatchdogBites has a heartbeat that never comes back.
func TestWatchdogBites(t *testing.T) {
	bubble(t, func(t *testing.T, proc string) {
		n := serve(t, proc, func(n *node) { n.config.Timeout, n.config.Watchdog = 20*time.Second, time.Minute })
		time.Sleep(10 * time.Minute)
		n.set(func() { n.platform.takes, n.platform.deaf = 24*time.Hour, true })
		time.Sleep(10 * time.Minute)
		if _, last := n.manager.has("WATCHDOG=1"); last < 10*time.Minute || last > 10*time.Minute+2*30*time.Second+20*time.Second+grace {
			t.Errorf("the last sign of life came after %v", last)
		}
		if !strings.Contains(n.log.String(), "loop is stuck") {
			t.Error("nothing in the log")
		}
		took, err := n.stop(t)
		if err == nil || took != 6*time.Second || !strings.Contains(err.Error(), "doesn't stop") {
			t.Errorf("ended after %v: %v", took, err)
		}
		time.Sleep(24 * time.Hour)
	})
}

func TestDrain(t *testing.T) {
	for _, c := range []struct {
		name  string
		takes time.Duration
		took  time.Duration
		ended int
	}{
		{"nothing under way", 0, 0, 0},
		{"finishes in time", 4 * time.Second, 3 * time.Second, 0},
		{"doesn't", time.Minute, 5 * time.Second, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, proc string) {
				n := serve(t, proc, func(n *node) { n.platform.takes = c.takes })
				time.Sleep(time.Second)
				took, err := n.stop(t)
				if err != nil || took != c.took || n.platform.ended != c.ended || n.platform.count() != 1 {
					t.Errorf("%v after %v, %d ended, %d heartbeats", err, took, n.platform.ended, n.platform.count())
				}
				if strings.Contains(n.log.String(), "the heartbeat failed") {
					t.Errorf("the end counts as a failure:\n%s", n.log)
				}
			})
		})
	}
}

func TestClockSkew(t *testing.T) {
	for _, c := range []struct {
		ahead time.Duration
		want  string
	}{{0, ""}, {50 * time.Second, ""}, {-50 * time.Second, ""}, {time.Hour, "platform_ahead_by=1h0m0s"}, {-15 * 24 * time.Hour, "platform_ahead_by=-360h0m0s"}} {
		bubble(t, func(t *testing.T, proc string) {
			n := serve(t, proc, func(n *node) { n.platform.clock = c.ahead })
			time.Sleep(5 * time.Minute)
			n.stop(t)
			log := n.log.String()
			if c.want == "" && strings.Contains(log, "clock") || c.want != "" && strings.Count(log, c.want) != 1 {
				t.Errorf("%v ahead:\n%s", c.ahead, log)
			}
		})
	}
}

func TestDeafManager(t *testing.T) {
	bubble(t, func(t *testing.T, proc string) {
		n := serve(t, proc, func(n *node) { n.manager.err = errors.New("no socket") })
		time.Sleep(time.Minute)
		n.stop(t)
		if n.platform.count() < 2 || !strings.Contains(n.log.String(), "systemd can't be told") {
			t.Errorf("%d heartbeats, log:\n%s", n.platform.count(), n.log)
		}
	})
}

// TestHeartbeatIsSmall guards what a fleet sends all the time.
func TestHeartbeatIsSmall(t *testing.T) {
	s := State{Modules: map[string]string{}, RootDigest: strings.Repeat("b", 64), Level: "enforced", Mount: nodeapi.MountMounted, Generation: 1234}
	for i := range 20 {
		s.Modules[fmt.Sprintf("0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8%02d", i)] = "sha256:" + strings.Repeat("a", 64)
	}
	f := Facts{BootID: bootID, Uptime: 1e6 * time.Second, LoadAverage: "10.12 10.08 10.01", MemoryAvailableKB: 1 << 30}
	b, err := json.Marshal(newHeartbeat(Config{AgentVersion: "v1.2.3-45-gabcdef0", Architecture: "amd64"}, f, s))
	if err != nil || len(b) > 2800 {
		t.Errorf("%d bytes for 20 modules, %v", len(b), err)
	}
	t.Logf("%d bytes for 20 modules", len(b))
}

func TestDefaults(t *testing.T) {
	c := New(Config{}).c
	if c.Proc != "/proc" || c.Architecture == "" || c.Timeout != time.Minute || c.Drain != 5*time.Second || c.Log == nil || c.Rand() >= 1 {
		t.Errorf("%+v", c)
	}
}

// TestSystemd speaks to a real socket.
func TestSystemd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "30000000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	n, watchdog, err := Systemd()
	if err != nil || watchdog != 30*time.Second {
		t.Fatalf("%v, %v", watchdog, err)
	}
	if err := n.Notify("READY=1\nSTATUS=x"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	k, err := socket.Read(buf)
	if err != nil || string(buf[:k]) != "READY=1\nSTATUS=x" {
		t.Errorf("%q, %v", buf[:k], err)
	}
	t.Setenv("WATCHDOG_USEC", "soon")
	if _, _, err := Systemd(); err == nil {
		t.Error("an odd WATCHDOG_USEC was accepted")
	}
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	n, watchdog, err = Systemd()
	if err != nil || watchdog != 0 || n.Notify("READY=1") != nil {
		t.Errorf("without systemd: %v, %v", watchdog, err)
	}
}
