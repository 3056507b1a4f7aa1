package platform_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/platform/postgrestest"
	"github.com/powernode/powernode-agent/internal/secret"
)

// several starts one platform that others may join. It is for the tests' second run.
func several(t *testing.T) *platformtest.Platform {
	t.Helper()
	if !postgrestest.Wanted() {
		t.Skip("SQLite has one platform")
	}
	return platformtest.StartWith(t, platform.Options{SharedSecret: secret.New(strings.Repeat("s", 32)), RegistryDir: filepath.Join(t.TempDir(), "registry")})
}

// bundleOf is what a platform says that nodes shall trust.
func bundleOf(t *testing.T, p *platformtest.Platform) string {
	t.Helper()
	a := p.Do(nil, http.MethodGet, nodeapi.PathCA, nil)
	if a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	return string(a.Body)
}

// TestReplicas: what a node and an operator do at one platform holds at the other, without a word between them.
func TestReplicas(t *testing.T) {
	one := several(t)
	two := one.Replica()
	if _, err := os.Stat(filepath.Join(two.Dir, operatorapi.CredentialName)); !os.IsNotExist(err) {
		t.Errorf("the second one made an operator's token: %v", err)
	}
	node := one.Enroll("web-1", "amd64")
	if code := works(two, node); code != "" {
		t.Errorf("enrolled at one, at the other: %s", code)
	}
	module := one.Publish(platformtest.Module{Name: "base", Version: "1.0.0"})
	if _, err := two.Operator.Assign(t.Context(), node.ID, operatorapi.AssignmentCreate{Module: module.Name}); err != nil {
		t.Fatal(err)
	}
	_, repository, _ := strings.Cut(module.Repository, "/") // without the host
	if a := two.Do(node, http.MethodGet, "/v2/"+repository+"/manifests/"+module.Digest, nil); a.Status != http.StatusOK {
		t.Errorf("a manifest that was pushed to the other: %d %s", a.Status, a.Body)
	}
	// A call that waits at one is answered by what is asked for at the other.
	got := make(chan []nodeapi.LeasedTask, 1)
	go func() {
		defer close(got)
		var out nodeapi.LeaseResponse
		two.Do(node, http.MethodPost, nodeapi.PathTaskLease, nodeapi.LeaseRequest{Max: 1, WaitSeconds: 60}).Into(&out)
		got <- out.Tasks
	}()
	made := ask(t, one, "web-1", operatorapi.TaskCreate{Kind: "sync"})
	if tasks := <-got; len(tasks) != 1 || tasks[0].ID != made.ID {
		t.Errorf("%+v", tasks)
	}
}

// TestReplicasOneToken: many strangers use one token at the same moment, at two platforms. One key gets the certificate, each time the same.
func TestReplicasOneToken(t *testing.T) {
	one := several(t)
	two := one.Replica()
	if _, err := one.Operator.CreateNode(t.Context(), operatorapi.NodeCreate{Name: "n"}); err != nil {
		t.Fatal(err)
	}
	token, err := two.Operator.CreateToken(t.Context(), "n", operatorapi.TokenCreate{})
	if err != nil {
		t.Fatal(err)
	}
	csrs := []string{one.CSR(one.Key()), one.CSR(one.Key())}
	var mu sync.Mutex
	certificates := map[string]int{}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			p := []*platformtest.Platform{one, two}[i/2%2]
			a := p.Do(nil, http.MethodPost, nodeapi.PathEnroll, nodeapi.EnrollRequest{BootstrapToken: token.Token, CSRPEM: csrs[i%2]})
			if !a.Envelope.Success {
				return
			}
			var out nodeapi.EnrollResponse
			a.Into(&out)
			mu.Lock()
			defer mu.Unlock()
			certificates[out.CertPEM]++
		})
	}
	wg.Wait()
	if len(certificates) != 1 {
		t.Fatalf("%d certificates", len(certificates))
	}
	for _, n := range certificates {
		if n != 8 {
			t.Errorf("%d of 8 that asked by the right key", n)
		}
	}
}

// TestReplicasOneTask: a node's calls for work at two platforms get each task once.
func TestReplicasOneTask(t *testing.T) {
	one := several(t)
	two := one.Replica()
	node := one.Enroll("web-1", "amd64")
	const tasks = 12
	for range tasks {
		ask(t, one, "web-1", operatorapi.TaskCreate{Kind: "introspect"})
	}
	var mu sync.Mutex
	given := map[string]int{}
	var wg sync.WaitGroup
	for _, p := range []*platformtest.Platform{one, two} {
		for range 2 {
			wg.Go(func() {
				for range tasks {
					var out nodeapi.LeaseResponse
					p.Do(node, http.MethodPost, nodeapi.PathTaskLease, nodeapi.LeaseRequest{Max: 1}).Into(&out)
					mu.Lock()
					for _, task := range out.Tasks {
						given[task.ID]++
					}
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	if len(given) != tasks {
		t.Errorf("%d of %d tasks were given", len(given), tasks)
	}
	for id, n := range given {
		if n != 1 {
			t.Errorf("task %s was given %d times", id, n)
		}
	}
}

// TestReplicasSkewed: a platform whose machine's clock is minutes off is as good as the others: leases, tokens, certificates and the time that it
// tells are by the database's clock.
func TestReplicasSkewed(t *testing.T) {
	one := several(t)
	for _, off := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
		two := one.ReplicaOff(off)
		name := fmt.Sprintf("web-%d", off/time.Minute+100)
		node := two.Enroll(name, "amd64")
		for _, p := range []*platformtest.Platform{one, two} {
			if code := works(p, node); code != "" {
				t.Errorf("%s, at %s: %s", off, p.URL, code)
			}
			var told nodeapi.HeartbeatResponse
			before := time.Now()
			p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, nodeapi.Heartbeat{BootID: "b", AgentVersion: "v", Architecture: "amd64", MountState: nodeapi.MountMounted}).Into(&told)
			if after := time.Now(); told.ServerTime.Before(before.Add(-5*time.Second)) || told.ServerTime.After(after.Add(5*time.Second)) {
				t.Errorf("%s: the time at %s is %s between %s and %s", off, p.URL, told.ServerTime, before, after)
			}
		}
		made := ask(t, one, name, operatorapi.TaskCreate{Kind: "reboot"})
		var got nodeapi.LeaseResponse
		one.Do(node, http.MethodPost, nodeapi.PathTaskLease, nodeapi.LeaseRequest{Max: 1}).Into(&got)
		if len(got.Tasks) != 1 || got.Tasks[0].ID != made.ID {
			t.Fatalf("%+v", got)
		}
		holding := got.Tasks[0].LeaseID
		for _, p := range []*platformtest.Platform{two, one} {
			var none nodeapi.LeaseResponse
			if p.Do(node, http.MethodPost, nodeapi.PathTaskLease, nodeapi.LeaseRequest{Max: 1, Holding: []string{holding}}).Into(&none); len(none.Tasks) != 0 {
				t.Errorf("%s: it is given once more: %+v", off, none)
			}
			if a := p.Do(node, http.MethodPost, nodeapi.TaskPath(nodeapi.PathTaskRenew, made.ID), nodeapi.RenewTask{LeaseID: holding}); a.Status != http.StatusOK {
				t.Errorf("%s: renewed at %s: %d %s", off, p.URL, a.Status, a.Body)
			}
		}
		if a := two.Do(node, http.MethodPost, nodeapi.TaskPath(nodeapi.PathTaskComplete, made.ID), nodeapi.CompleteTask{LeaseID: holding}); a.Status != http.StatusOK {
			t.Errorf("%s: completed: %d %s", off, a.Status, a.Body)
		}
	}
}

// TestReplicasRoll: the authority rolls at one platform, and the other goes along; nodes get through at both.
func TestReplicasRoll(t *testing.T) {
	one := several(t)
	two := one.Replica()
	ctx := t.Context()
	node := one.Enroll("web-1", "amd64")
	before := bundleOf(t, one)
	if bundleOf(t, two) != before {
		t.Fatal("they begin with different authorities")
	}
	if _, err := one.Operator.PrepareCA(ctx); err != nil {
		t.Fatal(err)
	}
	for bundleOf(t, two) == before {
		if ctx.Err() != nil {
			t.Fatal("the other one never heard of it")
		}
	}
	// The next step is made at the other one.
	if _, err := two.Operator.ActivateCA(ctx); err != nil {
		t.Fatal(err)
	}
	late := two.Enroll("web-2", "amd64")
	for _, p := range []*platformtest.Platform{one, two} {
		for _, n := range []*platformtest.Node{node, late} {
			if code := works(p, n); code != "" {
				t.Errorf("%s at %s: %s", n.ID, p.URL, code)
			}
		}
	}
	// Whoever starts later, with an empty directory or the old one, has them too.
	three := one.Replica()
	if got := bundleOf(t, three); got != bundleOf(t, two) {
		t.Error("the third has other authorities")
	}
	again := two.Restart()
	if code := works(again, late); code != "" {
		t.Errorf("after a restart: %s", code)
	}
}

// TestReplicasRollAtOnce: of two changes at the same moment one holds, at both platforms.
func TestReplicasRollAtOnce(t *testing.T) {
	one := several(t)
	two := one.Replica()
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for i, p := range []*platformtest.Platform{one, two} {
		wg.Go(func() { _, errs[i] = p.Operator.PrepareCA(t.Context()) })
	}
	wg.Wait()
	if errs[0] != nil && errs[1] != nil {
		t.Fatalf("neither: %v", errs)
	}
	for bundleOf(t, one) != bundleOf(t, two) {
		if t.Context().Err() != nil {
			t.Fatal("they never agree")
		}
	}
	list, err := one.Operator.CA(t.Context())
	if err != nil || len(list.Authorities) != 2 {
		t.Errorf("%+v, %v, after %v", list, err, errs)
	}
}

// TestReplicasAtOnce: platforms that start at the same moment over an empty database are one.
func TestReplicasAtOnce(t *testing.T) {
	if !postgrestest.Wanted() {
		t.Skip("SQLite has one platform")
	}
	database := platformtest.Empty(t)
	servers := make([]*platform.Server, 3)
	dirs := make([]string, len(servers))
	errs := make([]error, len(servers))
	var wg sync.WaitGroup
	for i := range servers {
		o := options(t, filepath.Join(t.TempDir(), "p"))
		o.Database, o.SharedSecret = database, secret.New(strings.Repeat("s", 32))
		dirs[i] = o.Dir
		wg.Go(func() { servers[i], errs[i] = platform.Open(t.Context(), o) })
	}
	wg.Wait()
	credentials, bundles := 0, map[string]bool{}
	for i, s := range servers {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if _, err := os.Stat(filepath.Join(dirs[i], operatorapi.CredentialName)); err == nil {
			credentials++
		}
		bundle, err := os.ReadFile(filepath.Join(dirs[i], "ca", "ca.pem"))
		if err != nil {
			t.Fatal(err)
		}
		bundles[string(bundle)] = true
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if credentials != 1 || len(bundles) != 1 {
		t.Errorf("%d credential files, %d authorities", credentials, len(bundles))
	}
}

// TestReplicasRefused goes through the platforms that don't belong to a database.
func TestReplicasRefused(t *testing.T) {
	one := several(t)
	alone := platformtest.Start(t)
	for name, c := range map[string]struct {
		dir    string
		change func(o *platform.Options)
		want   string
	}{
		"without the secret": {"", func(o *platform.Options) { o.SharedSecret = secret.Text{} }, "--shared-secret-file"},
		"another secret":     {"", func(o *platform.Options) { o.SharedSecret = secret.New(strings.Repeat("x", 32)) }, "--shared-secret-file"},
		"too short a secret": {"", func(o *platform.Options) { o.SharedSecret = secret.New("short") }, "openssl"},
		"another's directory": {"", func(o *platform.Options) {
			o.Dir = alone.Dir
			alone.Stop()
		}, "another database"},
		"one that isn't shared": {"", func(o *platform.Options) { o.Database = alone.Database() }, "--shared-secret-file first"},
	} {
		o := options(t, filepath.Join(t.TempDir(), "p"))
		o.Database, o.SharedSecret = one.Database(), secret.New(strings.Repeat("s", 32))
		c.change(&o)
		s, err := platform.Open(t.Context(), o)
		if err == nil {
			t.Errorf("%s: it starts", name)
			s.Close()
			continue
		}
		if fault.KindOf(err) != fault.Refuse || !strings.Contains(fault.HintOf(err), c.want) {
			t.Errorf("%s: %v; hint %q", name, err, fault.HintOf(err))
		}
	}
	if code := works(one, one.Enroll("after", "amd64")); code != "" {
		t.Error(code)
	}
}

// TestDatabaseAway: the database's connections are all cut, again and again. The platform goes on with the next call that gets through. That
// those who wait are woken then is TestWatchOther's.
func TestDatabaseAway(t *testing.T) {
	if !postgrestest.Wanted() {
		t.Skip("SQLite is never away")
	}
	p := platformtest.Start(t)
	node := p.Enroll("web-1", "amd64")
	for range 5 {
		postgrestest.Administer(t, fmt.Sprintf("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '%s'", p.Database().Database()))
		for a := p.Do(node, http.MethodGet, nodeapi.PathModules, nil); !a.Envelope.Success; a = p.Do(node, http.MethodGet, nodeapi.PathModules, nil) {
			if a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
				t.Fatalf("%d %s", a.Status, a.Body)
			}
		}
	}
}
