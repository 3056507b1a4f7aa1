package e2e

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/test/lab"
)

// TestVerifyLayout: a module is verified where it lies, without a store, a platform or a network,
// and "verified" is printed only when every check ran and passed.
func TestVerifyLayout(t *testing.T) {
	t.Parallel()
	p := &platform{&lab.Platform{T: t, Key: signingKey(t)}}
	n := p.blankNode(t, "nobody")
	n.trusts(`"registry.example/modules/*"`)
	const repository = "registry.example/modules/site"
	verify := func(layout string, flags ...string) result {
		t.Helper()
		return n.agent(append([]string{"verify", layout, "--trust-policy", n.trust, "--repository", repository}, flags...)...)
	}
	good := signedLayout(t, site("1"), p.Key, repository)
	if out := verify(good).OK(t); !strings.HasPrefix(out, "verified:") || !strings.Contains(out, "check seal:") {
		t.Errorf("verified: %s", out)
	}
	if out := verify(tarOf(t, good)).OK(t); !strings.HasPrefix(out, "verified:") {
		t.Errorf("verified: %s", out)
	}

	resealed := site("1").Sealed(t)
	other := site("1")
	other.Files["etc/app/page"] = "something else"
	resealed.Annotations[module.AnnotationSeal] = other.Sealed(t).Annotations[module.AnnotationSeal]
	foreignArch := site("1")
	foreignArch.Arch = map[string]string{"amd64": "arm64", "arm64": "amd64"}[hostArch]
	for _, c := range []struct {
		name  string
		r     func(t testing.TB) result
		code  int
		wants []string
	}{
		{"unsigned", func(t testing.TB) result { return verify(site("1").Layout(t)) }, 2, []string{"site 1", "not signed"}},
		{"a foreign key", func(t testing.TB) result { return verify(signedLayout(t, site("1"), foreignKey(t), repository)) }, 2, []string{"site 1", "key"}},
		{"another seal", func(t testing.TB) result { return verify(layoutAsIs(t, resealed, p.Key, repository)) }, 2, []string{"site 1", "seal"}},
		{"a byte of the layer", func(t testing.TB) result {
			layout := signedLayout(t, large(1<<16), p.Key, repository)
			damage(t, largestBlob(t, layout))
			return verify(layout)
		}, 2, []string{"large 1", "layer", "the blob's bytes are"}},
		{"a layer cut short", func(t testing.TB) result {
			layout := signedLayout(t, large(1<<16), p.Key, repository)
			truncate(t, largestBlob(t, layout))
			return verify(layout)
		}, 2, []string{"large 1", "layer", "bytes"}},
		{"a byte of the signature", func(t testing.TB) result {
			layout := signedLayout(t, site("1"), p.Key, repository) // whose bundle is larger than its layer
			damage(t, largestBlob(t, layout))
			return verify(layout)
		}, 2, []string{"site 1", "not signed", "is damaged"}},
		{"a repository without a rule", func(testing.TB) result {
			return n.agent("verify", good, "--trust-policy", n.trust, "--repository", "registry.example/other/site")
		}, 2, []string{"site 1", "no rule"}},
		{"for another architecture", func(t testing.TB) result { return verify(signedLayout(t, foreignArch, p.Key, repository)) }, 1, []string{"architecture"}},
		{"nothing in it", func(t testing.TB) result { return verify(emptyLayout(t)) }, 1, []string{"no image"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.r(t)
			r.Refused(t, c.code, c.wants...)
			if r.Stdout != "" {
				t.Errorf("it prints %s", r.Stdout)
			}
		})
	}
	if len(n.records()) > 0 {
		t.Error("verify keeps something")
	}
}

// tarOf packs a layout into a tar beside it.
func tarOf(t testing.TB, layout string) string {
	t.Helper()
	path := layout + ".tar"
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	if err := errors.Join(w.AddFS(os.DirFS(layout)), w.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestEnroll: the same command again changes nothing, and a token that was used for another key
// gets nothing.
func TestEnroll(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	n := p.node("web")
	token, ca := filepath.Join(filepath.Dir(n.trust), "token"), filepath.Join(filepath.Dir(n.trust), "ca.pem")
	write(t, token, []byte(n.token.Token+"\n"), 0o600)
	write(t, ca, []byte(n.token.CAPEM), 0o644)
	enroll := func(flags ...string) result {
		t.Helper()
		return n.agent(append([]string{"enroll", "--platform-url", n.token.PlatformURL, "--ca-file", ca, "--token-file", token}, flags...)...)
	}
	if out := enroll().OK(t); !strings.Contains(out, n.token.NodeID) {
		t.Errorf("enrolled: %s", out)
	}
	before := n.records()
	remove(t, token)
	if out := enroll().OK(t); !strings.Contains(out, "valid") {
		t.Errorf("enrolled again: %s", out)
	}
	n.sameRecords(before)

	write(t, token, []byte(n.token.Token+"\n"), 0o600)
	if err := os.RemoveAll(n.state()); err != nil {
		t.Fatal(err)
	}
	enroll().Refused(t, 5, "token", "used")
	// From standard input, with a token of its own.
	n.newToken()
	r := command(t, n.token.Token+"\n", nil, "powernode-agent", "enroll", "--state", n.state(), "--platform-url", n.token.PlatformURL, "--ca-file", ca, "--token-file", "-")
	if out := r.OK(t); !strings.Contains(out, n.token.NodeID) || strings.Contains(out+r.Stderr, n.token.Token) {
		t.Errorf("enrolled from standard input: %s%s", out, r.Stderr)
	}
	if events := len(n.detail().Certificates); events != 2 {
		t.Errorf("the node has %d certificates", events)
	}
}

// TestInterruptedBoot: a signal ends a boot before its root is there, and the next one comes up.
func TestInterruptedBoot(t *testing.T) {
	t.Parallel()
	network := newProxy(t)
	p := newPlatform(t, "--public-url", network.url())
	network.serve(p.Listen)
	p.Publish(base("1"))
	p.Publish(large(largeSize))
	n := p.node("web", "base", "large")
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		network.left.Store(3 << 20) // and the boot waits for the rest
		before := n.records()
		b := n.bootProcess()
		b.Log.Await(b.Done, "pull large 1 ...")
		r := b.End(t, s)
		if r.Code != 130 || strings.Count(r.Stderr, "powernode-agent: ") != 1 || strings.Contains(r.Stderr, "panic") {
			t.Errorf("%v: exit code %d\n%s", s, r.Code, r.Stderr)
		}
		n.nothingHalfDone(before)
		n.nothingMounted()
	}
	network.left.Store(-1)
	s := n.boot()
	if status := s.status(); !status.InStep || len(status.Remarks) != 0 {
		t.Errorf("status: %+v", status)
	}
	s.exit()
}
