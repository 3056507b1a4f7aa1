package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestClaimedNode boots a machine that was given its platform and no token: it shows a code, also after a power cut, and goes on into its root as soon as
// the operator has accepted it. Once it is enrolled it asks no more.
func TestClaimedNode(t *testing.T) {
	t.Parallel()
	links, err := net.Interfaces()
	if err != nil || len(links) < 2 {
		t.Skip("this machine has no network card to be known by")
	}
	p := platformWith(t, base("1"))
	n := p.node("web", "base")
	n.flags = []string{"--identity-source", "claim"}
	write(t, n.identity, fmt.Appendf(nil, "SERVER=%s\nCA_PEM=\"%s\"\n", n.token.PlatformURL, n.token.CAPEM), 0o600)

	code := n.showsCode(t)
	if again := n.showsCode(t); again != code {
		t.Errorf("a restart shows %s, before %s", again, code)
	}
	if list := p.Operator("claim", "list").OK(t); !strings.Contains(list, code) || !strings.Contains(list, "pending") {
		t.Errorf("the operator sees\n%s", list)
	}
	p.Operator("claim", "accept", strings.ToLower(code), "--node", "web").OK(t)
	s := n.boot()
	if status := s.status(); !status.InStep {
		t.Errorf("status: %+v", status)
	}
	s.exit()
	if _, err := os.Stat(filepath.Join(n.state(), "claim", "claim.json")); err == nil {
		t.Error("the claim is still on the disk")
	}

	s = n.boot()
	s.exit()
	if list := p.Operator("claim", "list").OK(t); strings.Count(list, "\n") != 2 || !strings.Contains(list, "done") {
		t.Errorf("after another boot the operator sees\n%s", list)
	}
}

// showsCode boots the node until it shows a claim code, and cuts the power.
func (n *node) showsCode(t testing.TB) string {
	t.Helper()
	proc := n.bootProcess()
	defer proc.Kill()
	proc.Log.Await(proc.Done, "or opens ")
	found := regexp.MustCompile(`powernode claim accept (\S{9}) `).FindStringSubmatch(proc.Log.String())
	if found == nil {
		t.Fatalf("the boot shows no code:\n%s", proc.Log)
	}
	return found[1]
}
