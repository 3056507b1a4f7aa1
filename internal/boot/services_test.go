package boot

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/module"
)

// TestServicesOfProvenModules: each module by itself, and privileged ones by the trust policy alone.
func TestServicesOfProvenModules(t *testing.T) {
	b := newBoot(Config{Console: io.Discard, Now: time.Now, Sysroot: t.TempDir()})
	b.trust = &Trust{PrivilegedServices: []string{"allowed"}}
	for name, service := range map[string]string{"allowed": "/bin/a", "denied": "/bin/a", "broken": "a | b"} {
		m := &module.Manifest{Name: name, Services: []module.Service{{Name: "s", StartCommand: service}}}
		m.Security.Privileged = name != "broken"
		b.proven = append(b.proven, &assemble.Proven{Wanted: assemble.Wanted{Name: name, Version: "1"}, Manifest: m})
	}
	set := b.makeServices()
	if len(set.Modules) != 1 || set.Modules[0].Module != "allowed" || len(set.Refused) != 2 {
		t.Errorf("%+v", set)
	}
	if u := set.Units(); len(u) != 1 || u[0].Name != "powernode-allowed_s.service" {
		t.Errorf("%+v", u)
	}
	if said := strings.Join(b.facts.Remarks, "\n"); !strings.Contains(said, "module denied") || !strings.Contains(said, "allow_privileged_services") || !strings.Contains(said, "module broken") {
		t.Errorf("%q", said)
	}
}
