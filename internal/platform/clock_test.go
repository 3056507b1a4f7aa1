package platform_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/platform/postgrestest"
)

// unsteady is a machine's clock: off by so much, and back by each more at every look.
type unsteady struct {
	mu        sync.Mutex
	off, each time.Duration
}

func (m *unsteady) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.off -= m.each
	return time.Now().Add(m.off)
}

func (m *unsteady) set(off, each time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.off, m.each = off, each
}

// onClock starts a platform over PostgreSQL on a machine with that clock, and enrolls a node.
func onClock(t *testing.T, m *unsteady) (*platformtest.Platform, *platformtest.Node) {
	t.Helper()
	if !postgrestest.Wanted() {
		t.Skip("over SQLite there is no other clock")
	}
	p := platformtest.StartWith(t, platform.Options{Machine: m.now})
	return p, p.Enroll("web-1", "amd64")
}

// TestClockUnknown: while the platform doesn't know the time it judges no node's certificate: to wait is all that the node is told.
func TestClockUnknown(t *testing.T) {
	m := &unsteady{}
	p, node := onClock(t, m)
	p.Do(node, http.MethodGet, nodeapi.PathModules, nil).Into(&nodeapi.ModuleList{})
	// Set at every look, so that no answer of the server says what time it is.
	m.set(0, time.Second)
	for range 3 {
		if a := p.Do(node, http.MethodGet, nodeapi.PathModules, nil); a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
			t.Errorf("%d %s", a.Status, a.Body)
		}
	}
	if a := p.Do(node, http.MethodGet, "/v2/x/tags/list", nil); a.Status != http.StatusServiceUnavailable {
		t.Errorf("the registry: %d %s", a.Status, a.Body)
	}
	if a := p.Do(nil, http.MethodGet, "/healthz", nil); a.Status != http.StatusServiceUnavailable {
		t.Errorf("health: %d %s", a.Status, a.Body)
	}
	m.set(0, 0)
	for a := p.Do(node, http.MethodGet, nodeapi.PathModules, nil); a.Status != http.StatusOK; a = p.Do(node, http.MethodGet, nodeapi.PathModules, nil) {
		if a.Status != http.StatusServiceUnavailable {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
	}
}

// TestClockThatIsSet: from the moment on that a machine's clock is set, by years, no good certificate counts as expired, in no handshake either.
func TestClockThatIsSet(t *testing.T) {
	m := &unsteady{}
	p, node := onClock(t, m)
	// The node's own clock is right all the time.
	client := p.Client(node)
	client.Transport.(*http.Transport).TLSClientConfig.Time = time.Now
	const years = 20 * 365 * 24 * time.Hour
	for i := range 6 {
		by := years * time.Duration(1-2*(i%2))
		m.set(max(by, 0), 0)
		p.Clock.Advance(by)
		for status := 0; status != http.StatusOK; {
			resp, err := client.Get(p.URL + nodeapi.PathModules)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if status = resp.StatusCode; status != http.StatusOK && status != http.StatusServiceUnavailable {
				t.Fatalf("set %d times: %d", i+1, status)
			}
		}
	}
}
