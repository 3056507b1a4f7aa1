package claim_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/identity/claim"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

// The environment by which a child process that is to be killed finds its parent's platform.
const (
	envURL = "CLAIM_TEST_URL"
	envCA  = "CLAIM_TEST_CA"
)

// keeper is a platform that claims every machine, and knows each by its MAC and its first key: another key is refused.
func keeper(t *testing.T) {
	t.Helper()
	if os.Getenv(envURL) != "" {
		return
	}
	var mu sync.Mutex
	keys := map[string]string{}
	ca := pkitest.NewCA(t, "CA")
	server := ca.Serve(ca.Web(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in nodeapi.ClaimRequest
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if first, known := keys[in.MAC]; known && first != in.ClaimKey {
			w.WriteHeader(http.StatusConflict)
			return
		}
		keys[in.MAC] = in.ClaimKey
		data, _ := json.Marshal(claimed())
		body, _ := json.Marshal(nodeapi.Envelope{Success: true, Data: data})
		_, _ = w.Write(body)
	}), nil)
	t.Setenv(envURL, server.URL)
	t.Setenv(envCA, string(ca.PEM()))
}

// TestCrashes fails, kills and cuts the power at each write of a claim, and of its end.
func TestCrashes(t *testing.T) {
	ask := func(dir, salt string, hook durable.Hook) error {
		sum := sha256.Sum256([]byte(dir + salt))
		o := options(filepath.Join(dir, "state"), os.Getenv(envURL), []byte(os.Getenv(envCA)), &console{})
		o.Machine.MAC = fmt.Sprintf("02:%x:%x:%x:%x:%x", sum[0:1], sum[1:2], sum[2:3], sum[3:4], sum[4:5])
		o.Machine.MACs = nil
		// The copy of a disk that lost its power lies elsewhere, and is the same machine's.
		var kept struct{ MAC string }
		if text, err := os.ReadFile(filepath.Join(dir, "state", "claim.json")); err == nil && json.Unmarshal(text, &kept) == nil {
			o.Machine.MAC = kept.MAC
		}
		o.Backoff = nodehttp.Backoff{Tries: 1}
		o.Hook = hook
		got, err := claim.Run(context.Background(), o)
		if err == nil && got.Token.Reveal() != token {
			err = errors.New("another token")
		}
		return err
	}
	scenario := durabletest.Scenario{
		Run: func(dir string, hook durable.Hook) error {
			if err := ask(dir, "", hook); err != nil {
				return err
			}
			if hook == nil {
				return nil
			}
			return claim.Settle(filepath.Join(dir, "state"), nil, hook)
		},
		Check: func(t testing.TB, dir, op string, _ error) {
			t.Helper()
			salt := ""
			if _, err := os.Stat(filepath.Join(dir, "state", "claim.json")); errors.Is(err, fs.ErrNotExist) {
				// Before the key is on the disk nobody was asked, and once the claim is forgotten the machine is enrolled. On a copy of the
				// disk from before, the platform has been asked since.
				salt = "another machine, at " + op
			}
			if err := ask(dir, salt, nil); err != nil {
				t.Fatalf("the next start: %v", err)
			}
			if err := claim.Settle(filepath.Join(dir, "state"), nil, nil); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(filepath.Join(dir, "state"))
			if err != nil || len(entries) != 1 {
				t.Errorf("after the end there is more than the lock: %v, %v", entries, err)
			}
		},
	}
	t.Run("full disk", func(t *testing.T) { keeper(t); scenario.FailEach(t, syscall.ENOSPC) })
	t.Run("kill", func(t *testing.T) { keeper(t); scenario.KillEach(t) })
	t.Run("power cut", func(t *testing.T) { keeper(t); scenario.PowerCutEach(t) })
}
