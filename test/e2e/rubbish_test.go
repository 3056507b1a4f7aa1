package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/signing"
)

// attach attaches something that looks like a signature to a published module.
func (p *platform) attach(m published, data []byte) {
	p.T.Helper()
	config := p.Credentials()
	tls, err := config.TLS()
	if err != nil {
		p.T.Fatal(err)
	}
	client := ociimage.NewClient(ociimage.Options{TLS: tls, Credential: func(context.Context, string) (string, string, error) {
		return operatorapi.RegistryUser, config.Token.Reveal(), nil
	}})
	defer client.Close()
	repository := config.RegistryHost() + "/modules/" + m.Name
	image, err := client.Resolve(p.T.Context(), ociimage.Reference{Repository: repository, Digest: digest.Digest(m.Digest)}, "")
	if err == nil {
		err = client.Attach(p.T.Context(), repository, image, ociimage.Signature{MediaType: signing.BundleMediaType, Data: data})
	}
	if err != nil {
		p.T.Fatal(err)
	}
}

// TestRubbishBesideASignature: whoever may attach things to an image can neither keep a module from
// booting, nor fill a node's disk, nor have the module pulled again.
func TestRubbishBesideASignature(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	m := p.Publish(base("1"))
	for i := range 20 {
		p.attach(m, fmt.Appendf(nil, `{"rubbish": %d}`, i))
	}
	p.attach(m, append([]byte(`{"large": "`), append(bytes.Repeat([]byte("x"), 900<<10), `"}`...)...))
	n := p.node("web", "base")
	s := n.boot()
	first := s.status()
	if facts := s.facts(); facts.Pulled.Modules != 1 || len(facts.Remarks) != 0 {
		t.Errorf("the first boot: %+v", facts)
	}
	s.exit()
	var kept int64
	err := filepath.WalkDir(filepath.Join(n.state(), "modules"), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && strings.Contains(e.Name(), "bundle") {
			info, err := e.Info()
			kept += info.Size()
			return err
		}
		return err
	})
	if err != nil || kept == 0 || kept > 64<<10 {
		t.Errorf("the store keeps %d bytes of signatures (%v)", kept, err)
	}

	p.attach(m, []byte(`{"one": "more"}`))
	s = n.boot()
	if facts := s.facts(); facts.Pulled.Modules != 0 || facts.Pulled.Bytes != 0 || len(facts.Remarks) != 0 {
		t.Errorf("the second boot: %+v", facts)
	}
	if second := s.status(); second.RootDigest != first.RootDigest || second.Generation != 1 {
		t.Errorf("first %+v, second %+v", first, second)
	}
	s.exit()
}

// TestOnlyThePolicyGoesIntoTheSystem: what lies beside the trust policy in the initramfs and isn't
// part of it, a token for one, isn't left in the running system for everyone to read.
func TestOnlyThePolicyGoesIntoTheSystem(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"))
	n := p.node("web", "base")
	beside := filepath.Join(filepath.Dir(n.trust), "identity.cfg")
	if err := os.WriteFile(beside, []byte("KEY=secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := n.boot()
	if s.has("/run/powernode/trust/identity.cfg") {
		t.Error("a file beside the trust policy was copied")
	}
	s.agent("verify", "base").OK(t)
	s.exit()
}
