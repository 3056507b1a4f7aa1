package enroll

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
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
	unused := 0
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
				// A renewal's key comes first, by the same names of operations.
				unused++
				which = fmt.Sprint("unused at ", op, unused)
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

// lifeScenario has a node that is enrolled already go through work on its certificate. Whatever happens, the next
// start has a certificate that the platform takes, and the same work then succeeds.
func lifeScenario(t *testing.T, work func(k *Keeper) error) durabletest.Scenario {
	t.Helper()
	var p *platform
	if os.Getenv(envURL) == "" {
		p = newPlatform(t)
		p.policy = nodeapi.RenewIssued
		// Another CA beside the one that it has.
		p.bundle += string(pkitest.NewCA(t, "Powernode CA 2").PEM())
		t.Setenv(envURL, p.URL)
	}
	return durabletest.Scenario{
		Setup: func(t testing.TB, dir string) {
			o := p.options(dir)
			o.Discover = func(context.Context) (Bootstrap, error) {
				b := p.bootstrap()
				sum := sha256.Sum256([]byte(dir))
				b.Token = secret.New("token-" + hex.EncodeToString(sum[:]))
				return b, nil
			}
			if _, _, err := Ensure(context.Background(), o); err != nil {
				t.Fatal(err)
			}
		},
		Run: func(dir string, hook durable.Hook) error { return work(NewKeeper(Options{Dir: dir, Hook: hook})) },
		Check: func(t testing.TB, dir, op string, _ error) {
			s, err := Inspect(dir, Wish{}, time.Now())
			if err != nil || !s.Situation.Usable() {
				t.Fatalf("after %q: %v, %v", op, s.Situation, err)
			}
			k := NewKeeper(Options{Dir: dir})
			if err := beat(k); err != nil {
				t.Fatalf("after %q the platform doesn't take the certificate: %v", op, err)
			}
			if err := work(k); err != nil {
				t.Fatalf("after %q, the next time: %v", op, err)
			}
			if err := beat(k); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 2 {
				t.Errorf("after %q there is more than credentials and lock: %v, %v", op, entries, err)
			}
		},
	}
}

// beat makes one call, and has the keeper hear what became of it.
func beat(k *Keeper) error {
	m, err := k.Material()
	if err != nil {
		return err
	}
	conn, err := nodehttp.New(m, nodehttp.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	err = conn.Do(context.Background(), nodehttp.Call{Doing: "beat", Method: "POST", Path: nodeapi.PathHeartbeat, Body: nodeapi.Heartbeat{}})
	if kept := k.hear(m, err); err == nil {
		err = kept
	}
	return err
}

func TestCrashes(t *testing.T) {
	ctx := context.Background()
	life := func(work func(k *Keeper) error) func(*testing.T) durabletest.Scenario {
		return func(t *testing.T) durabletest.Scenario { return lifeScenario(t, work) }
	}
	for _, c := range []struct {
		name     string
		scenario func(*testing.T) durabletest.Scenario
	}{
		{"first", func(t *testing.T) durabletest.Scenario { return scenario(t, false) }},
		{"replace", func(t *testing.T) durabletest.Scenario { return scenario(t, true) }},
		{"rotate", life(func(k *Keeper) error {
			if err := k.Rotate(ctx); err != nil {
				return err
			}
			return beat(k)
		})},
		{"renew", life(func(k *Keeper) error { return k.Renew(ctx) })},
		{"adopt CA", life(func(k *Keeper) error { return k.AdoptCA(ctx) })},
		{"refused", life(func(k *Keeper) error {
			if err := k.Rotate(ctx); err != nil {
				return err
			}
			m, err := k.Material()
			if err != nil {
				return err
			}
			return k.hear(m, &nodehttp.StatusError{Status: 401, Code: nodeapi.CodeUnauthorized})
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Run("full disk", func(t *testing.T) { c.scenario(t).FailEach(t, syscall.ENOSPC) })
			t.Run("kill", func(t *testing.T) { c.scenario(t).KillEach(t) })
			t.Run("power cut", func(t *testing.T) { c.scenario(t).PowerCutEach(t) })
		})
	}
}
