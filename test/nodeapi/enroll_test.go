package nodeapitest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/identity/places"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/runtime"
)

// node is a machine: its boot partition and its disk.
type node struct {
	t        *testing.T
	platform *platformtest.Platform
	name     string
	cfg, pki string
}

// newNode creates a node on the platform and gives a machine the identity.cfg for it.
func newNode(t *testing.T, p *platformtest.Platform, name string) *node {
	t.Helper()
	if _, err := p.Operator.CreateNode(t.Context(), operatorapi.NodeCreate{Name: name, Architecture: "amd64"}); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, platform: p, name: name}
	dir := t.TempDir()
	n.cfg, n.pki = filepath.Join(dir, "identity.cfg"), filepath.Join(dir, "pki")
	n.write(n.token())
	return n
}

func (n *node) token() string {
	n.t.Helper()
	token, err := n.platform.Operator.CreateToken(n.t.Context(), n.name, operatorapi.TokenCreate{})
	if err != nil {
		n.t.Fatal(err)
	}
	return token.Token
}

func (n *node) write(token string) {
	n.t.Helper()
	text := fmt.Sprintf("KEY=%s\nSERVER=%s\nCA_PEM='%s'\n", token, n.platform.URL, n.platform.Config.CAPEM)
	if err := os.WriteFile(n.cfg, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// start finds out who the node is and makes sure of its credentials, as every boot does.
// hook, if not nil, sees what is done on the disk.
func (n *node) start(hook durable.Hook) (*enroll.Credentials, enroll.Situation, error) {
	return enroll.Ensure(n.t.Context(), enroll.Options{
		Dir: n.pki, Hook: hook, AgentVersion: "v0-test", Architecture: "amd64", Backoff: nodehttp.Backoff{Tries: 1},
		Discover: func(ctx context.Context) (enroll.Bootstrap, error) {
			i, _, err := identity.Resolver{Sources: places.Places{IdentityFile: n.cfg}.Sources()}.Resolve(ctx)
			return enroll.Bootstrap{PlatformURL: i.PlatformURL, CAPEM: i.CAPEM, Token: i.Token, InstanceID: i.InstanceID}, err
		},
	})
}

// fixed is a node's state that doesn't change.
type fixed runtime.State

func (f fixed) State(context.Context) (runtime.State, error) { return runtime.State(f), nil }

// report waits until the platform has heard from the node.
func (n *node) report() *operatorapi.Report {
	n.t.Helper()
	for {
		detail, err := n.platform.Operator.Node(n.t.Context(), n.name)
		if err != nil {
			n.t.Fatal(err)
		}
		if detail.Node.Report != nil {
			return detail.Node.Report
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestEnrollAndServe is a node's life up to its first heartbeat.
func TestEnrollAndServe(t *testing.T) {
	n := newNode(t, platformtest.Start(t), "web-1")
	credentials, was, err := n.start(nil)
	if err != nil || was != enroll.None {
		t.Fatalf("%v, %v", was, err)
	}
	if _, was, err := n.start(nil); err != nil || was != enroll.Valid {
		t.Fatalf("the second start: %v, %v", was, err)
	}
	client, err := nodeclient.New(nodeclient.Config{Credentials: credentials})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	list, err := client.Modules(t.Context())
	if err != nil || list.Count != 0 {
		t.Errorf("modules: %+v, %v", list, err)
	}
	if _, err := client.Module(t.Context(), "0a1b2c3d-0000-4000-8000-000000000000"); nodehttp.StatusOf(err) != 404 || fault.KindOf(err) != fault.Refuse {
		t.Errorf("a module that isn't assigned: %v", err)
	}

	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	root := strings.Repeat("ab", 32)
	go func() {
		ended <- runtime.New(runtime.Config{
			Platform: client, Architecture: "amd64",
			State: fixed{RootDigest: root, Level: "enforced", Mount: nodeapi.MountMounted, Generation: 3},
		}).Run(ctx)
	}()
	r := n.report()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if r.BootID != strings.TrimSpace(string(boot)) || r.RootDigest != root || r.IntegrityLevel != "enforced" || r.MountState != "mounted" || r.Generation != 3 || r.MemoryFreeKB == 0 || r.LoadAverage == "" {
		t.Errorf("the platform heard %+v", r)
	}
}

// TestReplyLostBetweenPlatformAndDisk has the node lose the certificate after the platform made it.
func TestReplyLostBetweenPlatformAndDisk(t *testing.T) {
	n := newNode(t, platformtest.Start(t), "web-1")
	cut := errors.New("power cut")
	for i := range 10 {
		_, _, err := n.start(func(op string) error {
			if strings.HasPrefix(op, "credentials:") {
				return cut
			}
			return nil
		})
		if !errors.Is(err, cut) {
			t.Fatalf("start %d: %v", i, err)
		}
	}
	credentials, was, err := n.start(nil)
	if err != nil || was != enroll.KeyOnly {
		t.Fatalf("%v, %v", was, err)
	}
	client, err := nodeclient.New(nodeclient.Config{Credentials: credentials})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Modules(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestDiskLost has a node come back without its disk: its token is used by a key that is gone.
func TestDiskLost(t *testing.T) {
	n := newNode(t, platformtest.Start(t), "web-1")
	if _, _, err := n.start(nil); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(n.pki); err != nil {
		t.Fatal(err)
	}
	_, _, err := n.start(nil)
	if fault.KindOf(err) != fault.Refuse || nodehttp.CodeOf(err) != nodeapi.CodeTokenRefused || !strings.Contains(fault.HintOf(err), "powernode token create") {
		t.Fatalf("with the used token: %v (hint %q)", err, fault.HintOf(err))
	}
	n.write(n.token())
	if _, was, err := n.start(nil); err != nil || was != enroll.KeyOnly {
		t.Errorf("with a new token: %v, %v", was, err)
	}
}

// TestPlatformRestarts has a client outlive its platform.
func TestPlatformRestarts(t *testing.T) {
	p := platformtest.Start(t)
	n := newNode(t, p, "web-1")
	credentials, _, err := n.start(nil)
	if err != nil {
		t.Fatal(err)
	}
	client, err := nodeclient.New(nodeclient.Config{Credentials: credentials, Retry: nodehttp.Backoff{Tries: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Modules(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Stop()
	if _, err := client.Modules(t.Context()); fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "nothing listens there") {
		t.Errorf("while it is away: %v", err)
	}
	p.Restart()
	if _, err := client.Modules(t.Context()); err != nil {
		t.Errorf("after it is back: %v", err)
	}
}
