package platform_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/platform/postgrestest"
)

// childDir and childDatabase name, in the environment, the data directory that a child process serves and the URL of its PostgreSQL, if any.
const (
	childDir      = "POWERNODE_TEST_PLATFORM_DIR"
	childDatabase = "POWERNODE_TEST_PLATFORM_DATABASE"
)

// TestMain lets the test's own program be the platform that TestKill kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := serveChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(postgrestest.Both(m))
}

func serveChild(dir string) error {
	o := platform.Options{Dir: dir, Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)}
	if url := os.Getenv(childDatabase); url != "" {
		var err error
		if o.Database, err = db.ParsePostgres(url, ""); err != nil {
			return err
		}
	}
	s, err := platform.Open(context.Background(), o)
	if err != nil {
		return err
	}
	fmt.Println(s.URL())
	return s.Serve(context.Background())
}

// child is a platform in a process of its own.
type child struct {
	t   *testing.T
	dir string
	// database is the URL of its PostgreSQL, or "".
	database string
	cmd      *exec.Cmd
}

func newChild(t *testing.T) *child {
	t.Helper()
	c := &child{t: t, dir: filepath.Join(t.TempDir(), "platform")}
	if postgrestest.Wanted() {
		c.database = platformtest.PostgresURL(t)
	}
	return c
}

// start starts the child and returns a client once it answers.
func (c *child) start() (*operatorclient.Client, operatorclient.Config) {
	c.t.Helper()
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	c.cmd = exec.CommandContext(c.t.Context(), self)
	c.cmd.Env = append(os.Environ(), childDir+"="+c.dir, childDatabase+"="+c.database)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	// It says its URL once that is in its file.
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		c.t.Fatalf("the platform didn't start: %v", err)
	}
	config, err := operatorclient.LoadConfig(filepath.Join(c.dir, operatorapi.CredentialName))
	if err != nil {
		c.t.Fatal(err)
	}
	if config.URL != strings.TrimSpace(url) {
		c.t.Fatalf("the platform at %s wrote down %s", url, config.URL)
	}
	client, err := operatorclient.NewClient(config)
	if err != nil {
		c.t.Fatal(err)
	}
	return client, config
}

// kill ends the child as a power cut would end it, but for what the kernel still has in memory.
func (c *child) kill() {
	c.t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		c.t.Fatal(err)
	}
	_ = c.cmd.Wait() // it was killed
}

// TestKill kills the platform again and again while nodes are made and blobs pushed: whatever was
// acknowledged is there afterwards, and the platform starts.
func TestKill(t *testing.T) {
	c := newChild(t)
	acknowledged := map[string]bool{}
	blobs := map[string][]byte{}
	// On a slow machine it takes more rounds, each longer than the one before, until enough was answered.
	for round := 0; round < 6 || round < 60 && len(acknowledged) < 6; round++ {
		client, config := c.start()
		list, err := client.Nodes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for _, n := range list.Nodes {
			found[n.Name] = true
		}
		for name := range acknowledged {
			if !found[name] {
				t.Fatalf("round %d: node %s was acknowledged and is gone", round, name)
			}
		}
		push := pusher(t, config)
		for digest, data := range blobs {
			if got, err := push(http.MethodGet, "/v2/r/blobs/"+digest, nil); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("round %d: blob %s was acknowledged: %d bytes, %v", round, digest, len(got), err)
			}
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		for worker := range 2 {
			wg.Go(func() {
				for i := 0; ; i++ {
					name := fmt.Sprintf("n-%d-%d-%d", round, worker, i)
					if _, err := client.CreateNode(t.Context(), operatorapi.NodeCreate{Name: name}); err != nil {
						return
					}
					data := bytes.Repeat([]byte(name), 20_000)
					if _, err := push(http.MethodPost, "/v2/r/blobs/uploads/?digest="+sum(data), data); err != nil {
						return
					}
					mu.Lock()
					acknowledged[name], blobs[sum(data)] = true, data
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(20+37*round) * time.Millisecond)
		c.kill()
		wg.Wait()
		client.Close()
	}
	if len(acknowledged) < 6 {
		t.Errorf("only %d nodes were made", len(acknowledged))
	}
}

// pusher returns a function that makes a request to the registry as the operator.
func pusher(t *testing.T, config operatorclient.Config) func(method, path string, body []byte) ([]byte, error) {
	t.Helper()
	tlsConfig, err := config.TLS()
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig}}
	t.Cleanup(client.CloseIdleConnections)
	return func(method, path string, body []byte) ([]byte, error) {
		req, err := http.NewRequestWithContext(t.Context(), method, config.URL+path, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.SetBasicAuth(operatorapi.RegistryUser, config.Token.Reveal())
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		var out bytes.Buffer
		if _, err := out.ReadFrom(resp.Body); err != nil {
			return nil, err
		}
		if resp.StatusCode >= 300 {
			return nil, fmt.Errorf("status %d: %s", resp.StatusCode, &out)
		}
		return out.Bytes(), nil
	}
}
