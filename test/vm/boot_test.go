package vm

import (
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/test/lab"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// base returns the module with the init, without which nothing boots.
func base(t testing.TB, version string) lab.Module {
	t.Helper()
	return lab.Base(version, lab.Read(t, lab.Program("init")))
}

// pageText is large enough for an object of its own.
func pageText(version string) string {
	return strings.Repeat("the app's page, version "+version+"; ", 1000)
}

// app returns a module with one file.
func app(version string) lab.Module {
	return lab.Module{Name: "app", Version: version, Files: map[string]string{"usr/share/app/page": pageText(version)}}
}

const page = "/usr/share/app/page"

// TestBoot is a node's life: a first boot over the network, with every read checked by the kernel;
// a second one; and one without a network.
func TestBoot(t *testing.T) {
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("web", "base", "app")

	s := n.boot()
	s.good()
	enforced(t, s)
	digest := s.status().RootDigest
	s.PowerOff()
	qemu.Check(t, n.disk)

	s = n.boot()
	enforced(t, s)
	if got := s.status(); got.RootDigest != digest || got.Generation != 1 {
		t.Errorf("the second boot has generation %d, root %s, not %s", got.Generation, got.RootDigest, digest)
	}
	s.PowerOff()

	n.machine.Network = false
	n.machine.FirmwareConfig = map[string]string{}
	s = n.boot()
	enforced(t, s)
	if got := s.status().RootDigest; got != digest {
		t.Errorf("without a network the root is %s, not %s", got, digest)
	}
	s.PowerOff()
}

// enforced checks that the kernel checks every read of the running root.
func enforced(t *testing.T, s *system) {
	t.Helper()
	doc := s.status()
	if !doc.InStep || doc.Level != "enforced" {
		t.Errorf("status: in step %t because of %q, level %q", doc.InStep, doc.Reasons, doc.Level)
	}
	root := ""
	for line := range strings.Lines(s.Read("/proc/mounts")) {
		if f := strings.Fields(line); f[1] == "/" {
			root = line
		}
	}
	if !strings.Contains(root, "overlay") || !strings.Contains(root, "verity=require") {
		t.Errorf("the root is mounted as %q", root)
	}
	if got := s.Read(page); got != pageText("1") {
		t.Errorf("the page has %d bytes", len(got))
	}
	object := "/persist/var/lib/powernode/objects/" + fsverity.SumBytes([]byte(pageText("1"))).ObjectPath()
	if got := s.Write(object, "evil"); !strings.Contains(got, "operation not permitted") {
		t.Errorf("writing to an object: %q", got)
	}
}
