package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

// object returns the path of the object that holds a content.
func (n *node) object(content string) string {
	return filepath.Join(n.state(), "objects", fsverity.SumBytes([]byte(content)).ObjectPath())
}

// TestDamagedDisk: whatever of a node's disk is damaged while it is off, the next boot either
// makes it good from what is signed, or refuses with the one sentence, and never runs it.
func TestDamagedDisk(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"))
	a := p.Publish(app("1"))
	manifest := strings.TrimPrefix(a.Images[0].Digest, "sha256:")
	seal, err := fsverity.ParseDigest(a.Images[0].Seal)
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join("objects", seal.ObjectPath())
	data := filepath.Join("objects", fsverity.SumBytes([]byte(app("1").Files["usr/lib/app/data"])).ObjectPath())
	for _, c := range []struct {
		name string
		// path is below the directory of record; spoil is damage where it is nil.
		path  string
		spoil func(t testing.TB, path string)
	}{
		{"a byte of an object", data, nil},
		{"an object cut short", data, truncate},
		{"a byte of a module's image", image, nil},
		{"an object that is gone", data, remove},
		{"a module's image that is gone", image, remove},
		{"a byte of the root image", "ROOT", nil},
		{"the root image gone", "ROOT", remove},
		{"a byte of a module's record", "modules/" + manifest + "/module.json", nil},
		{"a byte of a manifest", "modules/" + manifest + "/manifest.json", nil},
		{"a byte of a config", "modules/" + manifest + "/config.json", nil},
		{"a byte of a signature", "modules/" + manifest + "/bundle-00.json", nil},
		{"a byte of an object list", "modules/" + manifest + "/objects", nil},
		{"a module's record that is gone", "modules/" + manifest + "/module.json", remove},
		{"a byte of the generation's record", "generations/1.json", nil},
		{"rubbish in the pointer", "generations/current", rubbish},
		{"a pointer to nothing", "generations/current", func(t testing.TB, path string) { write(t, path, []byte("7"), 0o600) }},
		{"a byte of the store's format", "store.json", rubbish},
		{"the credentials", "pki/credentials.json", rubbish},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := p.on(t).node(nodeName(), "base", "app")
			s := n.boot()
			root := s.status().RootDigest
			s.exit()
			if c.path == "ROOT" {
				digest, err := fsverity.ParseDigest(root)
				if err != nil {
					t.Fatal(err)
				}
				c.path = filepath.Join("objects", digest.ObjectPath())
			}
			if c.spoil == nil {
				c.spoil = damage
			}
			c.spoil(t, filepath.Join(n.state(), c.path))

			s = n.boot()
			if status := s.status(); status.InStep == (c.name == "the credentials") || status.RootDigest != root {
				t.Errorf("the root was %s and is %+v", root, status)
			}
			if got := s.read("/usr/lib/app/data"); got != app("1").Files["usr/lib/app/data"] {
				t.Error("the content isn't what was signed")
			}
			s.exit()
			// What was made good stays good, without the remark that may have been made.
			s = n.boot()
			if status := s.status(); status.RootDigest != root || (len(status.Remarks) != 0) != (c.name == "the credentials") {
				t.Errorf("booted once more: %+v", status)
			}
			s.exit()
		})
	}
}

func truncate(t testing.TB, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, info.Size()/2)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func rubbish(t testing.TB, path string) {
	t.Helper()
	write(t, path, []byte("rubbish \x00\xff\n"), 0o600)
}

// TestDamageIsNamedAndMended: status and verify name the module and the file, update mends them in
// the running node, and so does a boot that reaches the registry. Without it the boot refuses.
func TestDamageIsNamedAndMended(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"))
	n := p.node("web", "base", "app")
	s := n.boot()
	root := s.status().RootDigest
	object := n.object(app("1").Files["usr/lib/app/data"])
	s.agent("status", "--check").OK(t)
	damage(t, object)
	s.agent("verify", "app").Refused(t, 2, "app 1", "/usr/lib/app/data", "damaged", "powernode-agent update")
	s.agent("verify", "base").OK(t)
	named := s.agent("status", "--check")
	if named.Code != 2 || !strings.Contains(named.Stdout, "/usr/lib/app/data of app 1") {
		t.Errorf("status --check: %+v", named)
	}
	s.agent("update", "--dry-run").OK(t)
	s.agent("verify", "app").Refused(t, 2, "damaged")
	mended := s.agent("update")
	if mended.Code != 0 || !strings.Contains(mended.Stdout, "nothing to do") || !strings.Contains(mended.Stdout, "/usr/lib/app/data") {
		t.Errorf("update: %+v", mended)
	}
	s.agent("status", "--check").OK(t)
	s.agent("verify", "app").OK(t)
	s.exit()

	damage(t, object)
	p.Stop()
	n.refuses(2, "app 1", "/usr/lib/app/data", "damaged", "nor can it be mended")
	n.agent("verify", "app", "--trust-policy", n.trust).Refused(t, 2, "app 1", "/usr/lib/app/data", "damaged")
	remove(t, object)
	n.agent("verify", "app", "--trust-policy", n.trust).Refused(t, 2, "app 1", "/usr/lib/app/data", "isn't in the store")
	n.refuses(2, "app 1", "/usr/lib/app/data", "isn't in the store")
	p.Start()
	s = n.boot()
	if status := s.status(); status.RootDigest != root || !status.InStep || status.Generation != 1 {
		t.Errorf("status: %+v", status)
	}
	s.exit()
}

// TestTheWayBack: what can't be proven, or can't run, gives way to what ran before, with one
// remark that says why.
func TestTheWayBack(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"))
	n := p.node("web", "base", "app")
	s := n.boot()
	first := s.status()
	s.exit()
	p.Publish(app("2"))
	s = n.boot()
	second := s.status()
	s.exit()

	stays := func(what string, inStep bool, with statusDoc, remarks ...string) {
		t.Helper()
		s := n.boot()
		status := s.status()
		if status.RootDigest != with.RootDigest || status.Generation != with.Generation || status.InStep != inStep {
			t.Errorf("%s: status is %+v, want generation %d", what, status, with.Generation)
		}
		text := strings.Join(status.Remarks, "\n")
		for _, want := range remarks {
			if len(status.Remarks) != 1 || !strings.Contains(text, want) {
				t.Errorf("%s: remarks %q don't say %q", what, status.Remarks, want)
			}
		}
		s.exit()
	}

	page := n.object(app("2").Files["etc/app/page"])
	damage(t, page)
	p.Stop()
	s = n.boot()
	status := s.status()
	text := strings.Join(status.Remarks, "\n")
	if status.RootDigest != first.RootDigest || status.Generation != 1 || status.InStep || len(status.Remarks) != 2 ||
		!strings.Contains(text, "/etc/app/page") || !strings.Contains(text, "staying with generation 1") {
		t.Errorf("the newest generation is damaged, and nobody can be asked: %+v", status)
	}
	s.exit()
	p.Start()
	stays("it is mended", true, second, "app 2", "/etc/app/page", "is whole")

	headless := base("2")
	headless.Programs = nil
	p.Publish(headless)
	stays("the new root has no init", false, second, "/sbin/init", "staying with generation 2")
	p.Stop()
	stays("the new root had no init, and nobody can be asked", true, second, p.Listen, "staying with generation 2")
	p.Start()

	blocked := base("3")
	blocked.Files["proc"], blocked.Files["proc/"] = "a file\n", ""
	delete(blocked.Files, "proc/")
	p.Publish(blocked)
	stays("the new root has a file in the place of /proc", false, second, "/proc", "staying with generation 2")
	if current := n.pointer("current"); current != "2" {
		t.Errorf("current is %s", current)
	}
	p.Publish(base("4"))
	s = n.boot()
	if status := s.status(); status.Generation != 3 || !status.InStep || len(status.Remarks) != 0 {
		t.Errorf("with a good base: %+v", status)
	}
	s.exit()
}
