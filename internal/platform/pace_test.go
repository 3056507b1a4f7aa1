package platform_test

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// pulse is a heartbeat of a node whose state is what it was.
func pulse() nodeapi.Pulse {
	return nodeapi.Pulse{BootID: "b", StateHash: strings.Repeat("a", 64)}
}

// crowded has as many of the node's pulses under way as there may be, until release is called, and returns the answers to those that were too
// many.
func crowded(t *testing.T, p *platformtest.Platform, node *platformtest.Node, most int) (refused []platformtest.Answer, release func()) {
	t.Helper()
	full := nodeapi.Heartbeat{BootID: "b", AgentVersion: "v", Architecture: "amd64", MountState: nodeapi.MountMounted, StateHash: pulse().StateHash}
	if a := p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, full); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	begin := pulses(t, p, node, most)
	free := p.Hold()
	refused, end := begin()
	return refused, func() {
		free()
		end()
	}
}

// connected returns a client of the node that is connected already: while the platform is held up there is no time for handshakes.
func connected(t *testing.T, p *platformtest.Platform, node *platformtest.Node) *http.Client {
	t.Helper()
	client := p.Client(node)
	client.Transport.(*http.Transport).DisableKeepAlives = false
	t.Cleanup(client.CloseIdleConnections)
	if a := p.DoBy(client, http.MethodGet, nodeapi.PathConfig, nil); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	return client
}

// pulses returns what sends more of the node's pulses than there may be under way, and returns the answers to those that were too many. end waits
// for the others'.
func pulses(t *testing.T, p *platformtest.Platform, node *platformtest.Node, most int) (begin func() (refused []platformtest.Answer, end func())) {
	t.Helper()
	const more = 6
	var clients []*http.Client
	for range most + more {
		clients = append(clients, connected(t, p, node))
	}
	return func() ([]platformtest.Answer, func()) { return send(t, p, clients, more) }
}

// send sends a pulse by each client, of which so many are to be refused.
func send(t *testing.T, p *platformtest.Platform, clients []*http.Client, more int) (refused []platformtest.Answer, end func()) {
	t.Helper()
	most := len(clients) - more
	answers := make(chan platformtest.Answer, len(clients))
	var wait sync.WaitGroup
	for _, client := range clients {
		wait.Go(func() { answers <- p.DoBy(client, http.MethodPost, nodeapi.PathHeartbeat, pulse()) })
	}
	for range more {
		refused = append(refused, <-answers)
	}
	return refused, sync.OnceFunc(func() {
		wait.Wait()
		for range most {
			if a := <-answers; a.Status != http.StatusOK {
				t.Errorf("one that was under way: %d %s", a.Status, a.Body)
			}
		}
	})
}

// TestPace: the platform says how often nodes report. One that doesn't keep up puts pulses off, each for another time, and goes on with the rest.
func TestPace(t *testing.T) {
	const interval, most = 20, 3
	p := platformtest.StartWith(t, platform.Options{HeartbeatInterval: interval * time.Second, HeartbeatsAtOnce: most})
	node := p.Enroll("web-1", "amd64")
	free := connected(t, p, node)
	refused, release := crowded(t, p, node, most)
	for _, a := range refused {
		after, err := strconv.Atoi(a.Header.Get("Retry-After"))
		if a.Status != http.StatusTooManyRequests || a.Envelope.Code != nodeapi.CodeTooManyRequests || err != nil || after < interval || after >= 2*interval {
			t.Errorf("%d %s, Retry-After %q", a.Status, a.Body, a.Header.Get("Retry-After"))
		}
	}
	// Tasks, and what operators ask for, aren't put off.
	p.DoBy(free, http.MethodPost, nodeapi.PathTaskLease, nodeapi.LeaseRequest{Max: 1}).Into(&nodeapi.LeaseResponse{})
	if _, err := p.Operator.Nodes(t.Context()); err != nil {
		t.Error(err)
	}
	release()
	var told nodeapi.HeartbeatResponse
	p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, pulse()).Into(&told)
	if told.NextPollSeconds != interval || told.WantState {
		t.Errorf("%+v", told)
	}
}

// TestPaceAndSilence: where nodes are to report seldom they aren't silent in between.
func TestPaceAndSilence(t *testing.T) {
	p := platformtest.StartWith(t, platform.Options{HeartbeatInterval: 5 * time.Minute})
	node := p.Enroll("web-1", "amd64")
	var told nodeapi.HeartbeatResponse
	p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, heartbeat()).Into(&told)
	if told.NextPollSeconds != 300 {
		t.Errorf("%+v", told)
	}
	for _, c := range []struct {
		after  time.Duration
		status operatorapi.NodeStatus
		silent bool
	}{{15 * time.Minute, operatorapi.NodeRunning, false}, {6 * time.Minute, operatorapi.NodeStale, true}} {
		p.Clock.Advance(c.after)
		n, err := p.Operator.Node(t.Context(), "web-1")
		if err != nil {
			t.Fatal(err)
		}
		if n.Node.Status != c.status || (n.Node.State == operatorapi.StateSilent) != c.silent {
			t.Errorf("after %s more: %s, %s", c.after, n.Node.Status, n.Node.State)
		}
	}
}
