package platform_test

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/api"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// nodeCalls is how many calls one node may have under way.
const nodeCalls = 16

// busy has as many of the node's calls under way as there may be, until release is called: the platform has asked each for its body, and waits.
func busy(t *testing.T, p *platformtest.Platform, node *platformtest.Node) (release func()) {
	t.Helper()
	var wait sync.WaitGroup
	var bodies []*io.PipeWriter
	release = sync.OnceFunc(func() {
		for _, w := range bodies {
			_ = w.CloseWithError(io.ErrUnexpectedEOF)
		}
		wait.Wait()
	})
	t.Cleanup(release)
	reading, ended := make(chan struct{}, nodeCalls), make(chan string, nodeCalls)
	for range nodeCalls {
		body, w := io.Pipe()
		bodies = append(bodies, w)
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { reading <- struct{}{} }})
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL+nodeapi.PathHeartbeat, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Expect", "100-continue")
		client := p.Client(node)
		client.Transport.(*http.Transport).ExpectContinueTimeout = time.Hour
		wait.Go(func() {
			resp, err := client.Do(req)
			if err != nil {
				ended <- err.Error()
				return
			}
			ended <- resp.Status
			_ = resp.Body.Close()
		})
	}
	for range nodeCalls {
		select {
		case <-reading:
		case why := <-ended:
			t.Fatalf("a call isn't under way: %s", why)
		}
	}
	return release
}

// TestCallsOfOneNode: a node that has many calls under way gets no further one of any kind, and takes nothing from others.
func TestCallsOfOneNode(t *testing.T) {
	p := platformtest.Start(t)
	node, other := p.Enroll("web-1", "amd64"), p.Enroll("web-2", "amd64")
	client := connected(t, p, node)
	release := busy(t, p, node)
	for _, route := range api.NodeRoutes() {
		if route.Anyone {
			continue
		}
		var body any
		if route.Method == http.MethodPost {
			body = strings.NewReader("{}")
		}
		a := p.DoBy(client, route.Method, route.Path, body)
		if a.Status != http.StatusTooManyRequests || a.Envelope.Code != nodeapi.CodeTooManyRequests || a.Header.Get("Retry-After") != "5" {
			t.Errorf("%s %s: %d %s, Retry-After %q", route.Method, route.Path, a.Status, a.Body, a.Header.Get("Retry-After"))
		}
	}
	p.Do(other, http.MethodPost, nodeapi.PathHeartbeat, heartbeat()).Into(&nodeapi.HeartbeatResponse{})
	p.Do(other, http.MethodGet, nodeapi.PathModules, nil).Into(&nodeapi.ModuleList{})
	release()
	// The platform sees a little later than its caller that a call has ended.
	for a := p.Do(node, http.MethodGet, nodeapi.PathModules, nil); a.Status != http.StatusOK; a = p.Do(node, http.MethodGet, nodeapi.PathModules, nil) {
		if a.Status != http.StatusTooManyRequests {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
	}
}

// TestHeartbeatsOfOneNode: one node's heartbeats leave places for others'.
func TestHeartbeatsOfOneNode(t *testing.T) {
	p := platformtest.StartWith(t, platform.Options{HeartbeatsAtOnce: nodeCalls + 1})
	node, other := p.Enroll("web-1", "amd64"), p.Enroll("web-2", "amd64")
	full := nodeapi.Heartbeat{BootID: "b", AgentVersion: "v", Architecture: "amd64", MountState: nodeapi.MountMounted, StateHash: pulse().StateHash}
	for _, n := range []*platformtest.Node{node, other} {
		p.Do(n, http.MethodPost, nodeapi.PathHeartbeat, full).Into(&nodeapi.HeartbeatResponse{})
	}
	ofMany, ofOther := pulses(t, p, node, nodeCalls), pulses(t, p, other, 1)
	free := p.Hold()
	first, endFirst := ofMany()
	second, endSecond := ofOther()
	free()
	endFirst()
	endSecond()
	for who, c := range map[string]struct {
		refused []platformtest.Answer
		why     string
	}{"the many": {first, "this node has 16 calls under way"}, "the other's": {second, "the platform has too many heartbeats under way"}} {
		for _, a := range c.refused {
			if a.Status != http.StatusTooManyRequests || a.Envelope.Error != c.why || a.Header.Get("Retry-After") == "" {
				t.Errorf("%s: %d %s", who, a.Status, a.Body)
			}
		}
	}
}
