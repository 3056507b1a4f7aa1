package faults

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// lasts is how long a fault lasts from its first strike: longer than a lease.
const lasts = 90 * time.Second

// stormy is how many requests of one kind are too many for the time that a fault lasts: more than one every two seconds.
const stormy = int(lasts / (2 * time.Second))

// place is a platform with what a proxy before it needs.
type place struct {
	*platformtest.Platform
	host   string
	server tls.Certificate
	roots  *tls.Config
}

func newPlace(t testing.TB) *place {
	t.Helper()
	p := platformtest.Start(t)
	p.Publish(platformtest.Module{Name: "nginx", Version: "1.0.0"})
	u, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	// The proxy has a certificate of the platform's own authority.
	copied := filepath.Join(t.TempDir(), "ca")
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(p.Dir, "ca"))); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(copied + "/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if err := os.Chmod(file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := durable.OpenDir(copied, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	authority, err := ca.Open(dir, p.Clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	server, err := authority.NewServerCertificate([]string{u.Hostname()})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := server.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	roots := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: authority.Pool(), ServerName: u.Hostname()}
	return &place{p, u.Host, *certificate, roots}
}

// TestFaults has a node live without a fault, in which it asks everything that there is to ask; and then every fault strike at every kind of request for minutes, and the node come through: everything arrives, what may be done once is done at
// most once, nobody storms, and nothing is left open.
func TestFaults(t *testing.T) {
	// What Go waits for connections by is made with the first thing that can be waited for, and stays.
	if a, b, err := os.Pipe(); err != nil || a.Close() != nil || b.Close() != nil {
		t.Fatal(err)
	}
	before, running := descriptors(t), goleak.IgnoreCurrent()
	kinds := endpoints(t)
	t.Run("without", func(t *testing.T) {
		c := newCycle(t, newPlace(t), kinds, "", fault{})
		c.run()
		for _, k := range kinds {
			if c.proxy.asked[k] == 0 {
				t.Errorf("the node doesn't ask %s: have it do so in the cycle, or say in beside why not", k)
			}
		}
	})
	if t.Failed() {
		return
	}
	t.Run("at", func(t *testing.T) {
		for i, k := range kinds {
			t.Run(k.name(), func(t *testing.T) {
				t.Parallel()
				var p *place
				for j, f := range faults {
					if (i*len(faults)+j)%oneIn > 0 {
						continue
					}
					if p == nil {
						p = newPlace(t)
					}
					t.Run(strings.ReplaceAll(f.name, " ", "-"), func(t *testing.T) { newCycle(t, p, kinds, k, f).run() })
				}
			})
		}
	})
	// The group's own goroutines have ended, and a bubble doesn't end before its own. What a platform has closed may need a while on a busy machine.
	err, left := goleak.Find(running), descriptors(t)-before
	for begun := time.Now(); (err != nil || left > 0) && time.Since(begun) < time.Minute; {
		time.Sleep(100 * time.Millisecond)
		err, left = goleak.Find(running), descriptors(t)-before
	}
	if err != nil {
		t.Error(err)
	}
	if left > 0 {
		t.Errorf("%d descriptors are open that weren't", left)
	}
}

// descriptors counts this process's open files.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// cycle is a node's life from its enrollment to its next certificate.
type cycle struct {
	t     *testing.T
	place *place
	proxy *proxy
	node  *node
	name  string
	tasks map[nodeapi.TaskKind]string
	base  time.Time // the platform's time at the beginning
	token operatorapi.Token
	mu    sync.Mutex
	certs map[string]*tls.Certificate
	begun time.Time     // of the bubble
	took  time.Duration // what it took in there
}

func newCycle(t *testing.T, at *place, kinds []kind, k kind, f fault) *cycle {
	t.Helper()
	c := &cycle{t: t, place: at, tasks: map[nodeapi.TaskKind]string{}, certs: map[string]*tls.Certificate{}}
	c.name = fmt.Sprintf("n%d", seed(t.Name()))
	if _, err := at.Operator.CreateNode(t.Context(), operatorapi.NodeCreate{Name: c.name, Architecture: "amd64"}); err != nil {
		t.Fatal(err)
	}
	if _, err := at.Operator.Assign(t.Context(), c.name, operatorapi.AssignmentCreate{Module: "nginx"}); err != nil {
		t.Fatal(err)
	}
	for kind, options := range map[nodeapi.TaskKind]string{
		nodeapi.TaskGC: `{}`, nodeapi.TaskInit: `{"action":"restart","modules":["nginx"]}`, nodeapi.TaskIntrospect: `{}`, nodeapi.TaskRotate: `{}`,
	} {
		made, err := at.Operator.CreateTask(t.Context(), c.name, operatorapi.TaskCreate{Kind: string(kind), Options: json.RawMessage(options)})
		if err != nil {
			t.Fatal(err)
		}
		c.tasks[kind] = made.ID
	}
	var err error
	if c.token, err = at.Operator.CreateToken(t.Context(), c.name, operatorapi.TokenCreate{}); err != nil {
		t.Fatal(err)
	}
	c.base = at.Clock.Now()
	c.proxy = &proxy{
		t: t, platform: at.host, server: at.server, kinds: kinds, on: k, fault: f, lasts: lasts, pair: c.pair,
		asked: map[kind]int{}, open: map[*end]bool{}, ours: map[*end]bool{}, done: map[string]int{}, idle: map[string][]*upstream{},
	}
	return c
}

func seed(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return h.Sum64()
}

// run runs the cycle in a bubble, and looks at what came of it.
func (c *cycle) run() {
	c.t.Helper()
	dir := c.t.TempDir()
	// For the platform, too, only the bubble's time passes: what all of this takes on a busy machine would end leases.
	defer c.place.Clock.Stop()()
	synctest.Test(c.t, func(t *testing.T) {
		c.begun = time.Now()
		ahead := c.base.Sub(c.begun)
		now := func() time.Time { return time.Now().Add(ahead) }
		applied := time.Duration(0)
		c.proxy.roots = c.place.roots.Clone()
		c.proxy.roots.Time = now
		c.proxy.follow = func() {
			c.proxy.with(func() {
				d := time.Since(c.begun) - applied
				c.place.Clock.Advance(d)
				applied += d
			})
		}
		log := slog.New(slog.NewTextHandler(lines{c}, nil))
		// By its own clock this machine is behind.
		c.node = newNode(t, dir, func() nodehttp.Options { return nodehttp.Options{Dial: c.proxy.dial} }, log, -24*time.Hour)
		c.live()
		c.took = time.Since(c.begun)
		c.proxy.close()
	})
	if !c.t.Failed() {
		c.judge()
	}
}

type lines struct{ c *cycle }

func (l lines) Write(p []byte) (int, error) {
	_, line, _ := strings.Cut(string(p), " ")
	l.c.t.Logf("%8s %s", time.Since(l.c.begun).Round(time.Millisecond), strings.TrimSpace(line))
	return len(p), nil
}

// live is what goes on in the bubble.
func (c *cycle) live() {
	n := c.node
	if !n.enroll(n.bootstrap(c.place.URL, c.place.Config.CAPEM, c.token.Token)) {
		return
	}
	stop, err := n.serve(seed(c.name))
	if err != nil {
		c.t.Error(err)
		return
	}
	defer func() {
		stop()
		synctest.Wait()
		c.proxy.with(func() {
			if len(c.proxy.open) > 0 {
				c.t.Errorf("the node leaves %d connections open", len(c.proxy.open))
			}
		})
	}()
	// What comes after the work may be what the fault strikes.
	if !c.until("do its work", func() bool { return c.worked() }) ||
		!n.again("rotate", n.keeper.Rotate) || !n.again("follow the CA", n.keeper.AdoptCA) || !n.again("renew", n.keeper.Renew) ||
		!c.until(fmt.Sprintf("ask %s, or see the fault end there", c.proxy.on), c.proxy.gone) {
		return
	}
	over := time.Now()
	c.until("be heard again", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.acked.After(over)
	})
	c.until("do its work at last", func() bool { return c.worked() })
}

// until waits for something, for at most half a day.
func (c *cycle) until(what string, is func() bool) bool {
	for begun := time.Now(); !is(); time.Sleep(time.Second) {
		if time.Since(begun) > 12*time.Hour {
			c.t.Errorf("the node doesn't %s", what)
			return false
		}
	}
	return true
}

// worked tells whether the platform knows everything that the node has to tell.
func (c *cycle) worked() bool {
	n := c.node
	n.mu.Lock()
	all := !n.acked.IsZero() && !n.synced.IsZero() && n.boot
	n.mu.Unlock()
	for _, id := range c.tasks {
		c.proxy.with(func() {
			all = all && c.proxy.done[nodeapi.TaskPath(nodeapi.PathTaskComplete, id)]+c.proxy.done[nodeapi.TaskPath(nodeapi.PathTaskFail, id)] > 0
		})
	}
	if !all {
		return false
	}
	left, _, err := n.queue.Size()
	if err != nil {
		c.t.Error(err)
	}
	return left == 0
}

// judge looks at what the platform and the node have of it.
func (c *cycle) judge() {
	c.t.Helper()
	p, op := c.proxy, c.place.Operator
	runs := c.node.runs
	for kind, id := range c.tasks {
		got, err := op.Task(c.t.Context(), id)
		if err != nil {
			c.t.Fatal(err)
		}
		state, code := got.Task.State, got.Task.Code
		complete := state == "complete" && string(got.Result) == `{"steps":100}`
		switch kind {
		case nodeapi.TaskInit:
			// Once, or not known to be done.
			interrupted := state == "failed" && code == string(nodeapi.FailInterrupted)
			if runs[kind] > 1 || complete && runs[kind] != 1 || !complete && !interrupted {
				c.t.Errorf("%s: %+v %s, run %d times", kind, got.Task, got.Result, runs[kind])
			}
		case nodeapi.TaskRotate:
			if state != "failed" || code != string(nodeapi.FailUnknownKind) {
				c.t.Errorf("%s: %+v", kind, got.Task)
			}
		default:
			// A task's end doesn't wait for ever for what the platform doesn't let the node tell.
			mute := p.on == nodeapi.PathTaskProgress && p.fault.name == "401" && got.Output == ""
			if !complete || runs[kind] < 1 || runs[kind] > 3 || !mute && !strings.Contains(got.Output, "the end\n") {
				c.t.Errorf("%s: %+v %s, run %d times, output %q", kind, got.Task, got.Result, runs[kind], got.Output[max(0, len(got.Output)-100):])
			}
		}
	}
	c.judgeEvents()
	detail, err := op.Node(c.t.Context(), c.name)
	if err != nil {
		c.t.Fatal(err)
	}
	if len(detail.Boots) != 1 {
		c.t.Errorf("boots: %+v", detail.Boots)
	}
	origins := map[string]int{}
	for _, cert := range detail.Certificates {
		origins[cert.Origin]++
	}
	if origins["enroll"] != 1 || origins["refresh"] != 1 || origins["renew"] > 4 {
		c.t.Errorf("certificates: %v", origins)
	}
	all := 0
	for _, n := range p.asked {
		all += n
	}
	minutes := int(c.took / time.Minute)
	if p.struck > stormy || p.dials > 3*stormy+minutes || all > 3*stormy+4*minutes {
		c.t.Errorf("struck %d times; %d connections and %d requests in %v: %v", p.struck, p.dials, all, c.took, p.asked)
	}
	c.t.Logf("struck %d times; %d connections and %d requests in %v", p.struck, p.dials, all, c.took)
}

// judgeEvents: every event has arrived once, or was given up with a word.
func (c *cycle) judgeEvents() {
	c.t.Helper()
	list, err := c.place.Operator.NodeEvents(c.t.Context(), operatorclient.Listing{Node: c.name, Limit: 1000})
	if err != nil {
		c.t.Fatal(err)
	}
	seen, texts, dropped := map[string]int{}, map[string]int{}, 0
	for _, e := range list.Events {
		seen[e.ID]++
		switch e.Kind {
		case "test.told":
			texts[e.Text]++
		case "events.dropped":
			for _, n := range e.Fields {
				d, err := strconv.Atoi(n)
				if err != nil {
					c.t.Errorf("%+v", e)
				}
				dropped += d
			}
		}
	}
	for id, n := range seen {
		if n != 1 {
			c.t.Errorf("event %s is there %d times", id, n)
		}
	}
	refused := c.proxy.on == nodeapi.PathEvents && c.proxy.fault.name == "409"
	if len(texts)+dropped < told || dropped > 0 && !refused {
		c.t.Errorf("of %d events %d have arrived, and %d were given up", told, len(texts), dropped)
	}
}

// pair returns a node's certificate with its key, by what it shows.
func (c *cycle) pair(leaf []byte) *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if pair := c.certs[string(leaf)]; pair != nil {
		return pair
	}
	m, err := c.node.keeper.Material()
	if err != nil || m.Certificate == nil || string(m.Certificate.Certificate[0]) != string(leaf) {
		return nil
	}
	c.certs[string(leaf)] = m.Certificate
	return m.Certificate
}
