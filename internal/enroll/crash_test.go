package enroll

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/secret"
)

// The environment by which a child process that is to be killed finds its parent's platform.
const (
	envURL = "ENROLL_TEST_URL"
	envCA  = "ENROLL_TEST_CA"
)

// scenario enrolls a node at a platform that outlives it. The platform takes a token from one key
// only, so that the same token being good after a fault proves that the key was kept. With
// replace, the node has credentials before, which have expired.
func scenario(t *testing.T, replace bool) durabletest.Scenario {
	t.Helper()
	var p *platform
	if os.Getenv(envURL) == "" {
		p = newPlatform(t)
		t.Setenv(envURL, p.URL)
		t.Setenv(envCA, string(p.ca.PEM()))
	}
	later := func() time.Time { return time.Now().Add(time.Hour) }
	token := func(dir, which string) string {
		sum := sha256.Sum256([]byte(dir))
		return strings.NewReplacer(" ", "-", ":", "-").Replace(which) + "-" + hex.EncodeToString(sum[:])
	}
	enroll := func(dir, token string, now func() time.Time, hook durable.Hook) error {
		_, _, err := Ensure(context.Background(), Options{
			Dir: filepath.Join(dir, "pki"), Hook: hook, HTTP: nodehttp.Options{Now: now}, Backoff: nodehttp.Backoff{Tries: 1},
			Discover: func(context.Context) (Bootstrap, error) {
				return Bootstrap{PlatformURL: os.Getenv(envURL), CAPEM: []byte(os.Getenv(envCA)), Token: secret.New(token)}, nil
			},
		})
		return err
	}
	setup := func(t testing.TB, dir string) {
		p.set(func() { p.template = func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Minute) } })
		defer p.set(func() { p.template = nil })
		if err := enroll(dir, token(dir, "old"), time.Now, nil); err != nil {
			t.Fatal(err)
		}
	}
	if !replace {
		setup = nil
	}
	return durabletest.Scenario{
		Setup: setup,
		Run:   func(dir string, hook durable.Hook) error { return enroll(dir, token(dir, "new"), later, hook) },
		Check: func(t testing.TB, dir, op string, _ error) {
			pki := filepath.Join(dir, "pki")
			s, err := Inspect(pki, Wish{}, later())
			if err != nil {
				t.Fatal(err)
			}
			which := "new"
			if !s.Pending && !s.Situation.Usable() {
				// Before the key is on the disk nobody may have been asked. On a copy of the disk
				// from that time the token has been used since, so each takes another.
				if op == "" || !strings.HasPrefix(op, "pending-key:") && !strings.HasPrefix(op, "directory:") {
					t.Fatalf("at %q: %v, and no waiting key", op, s.Situation)
				}
				which = "unused at " + op
			}
			if err := enroll(dir, token(dir, which), later, nil); err != nil {
				t.Fatalf("the next start: %v", err)
			}
			if _, err := Load(pki, later()); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(pki)
			if err != nil || len(entries) != 2 {
				t.Errorf("after the next start there is more than credentials and lock: %v, %v", entries, err)
			}
		},
	}
}

func TestCrashes(t *testing.T) {
	for _, c := range []struct {
		name    string
		replace bool
	}{{"first", false}, {"replace", true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Run("full disk", func(t *testing.T) { scenario(t, c.replace).FailEach(t, syscall.ENOSPC) })
			t.Run("kill", func(t *testing.T) { scenario(t, c.replace).KillEach(t) })
			t.Run("power cut", func(t *testing.T) { scenario(t, c.replace).PowerCutEach(t) })
		})
	}
}
