package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLostCredentialsDontStrandANode: a node that has run before, and has no credentials and no
// token any more, boots what ran, and says why it isn't in touch with the platform.
func TestLostCredentialsDontStrandANode(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"))
	n := p.node("web", "base")
	s := n.boot()
	first := s.status()
	s.exit()

	if err := os.Remove(filepath.Join(n.persist, "var/lib/powernode/pki/credentials.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(n.identity); err != nil {
		t.Fatal(err)
	}
	s = n.boot()
	second := s.status()
	if second.RootDigest != first.RootDigest || second.Generation != first.Generation || second.InStep {
		t.Errorf("first %+v, second %+v", first, second)
	}
	if len(second.Remarks) != 1 || !strings.Contains(second.Remarks[0], "staying with generation 1") || !strings.Contains(second.Remarks[0], n.identity) {
		t.Errorf("the boot remarks %q", second.Remarks)
	}
	s.exit()
}
