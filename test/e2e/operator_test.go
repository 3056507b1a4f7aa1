package e2e

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/test/lab"
)

// operating is an operator's session that a test spoils.
type operating struct {
	*platform
	t testing.TB
	// dir is for the test's files; env is added to the environment.
	dir string
	env []string
}

// publish runs module publish over a layout.
func (o *operating) publish(layout string, flags ...string) result {
	o.t.Helper()
	return o.run(append([]string{"module", "publish", "--key", o.Key + ".key", layout}, flags...)...)
}

func (o *operating) run(args ...string) result {
	o.t.Helper()
	return command(o.t, "", o.env, "powernode", args...)
}

// config replaces the operator's credential file by an altered one.
func (o *operating) config(alter func(*operatorapi.Credentials), perm os.FileMode) {
	o.t.Helper()
	credentials := decode[operatorapi.Credentials](o.t, read(o.t, o.Config))
	alter(&credentials)
	text, err := json.Marshal(credentials)
	if err != nil {
		o.t.Fatal(err)
	}
	o.configText(text, perm)
}

func (o *operating) configText(text []byte, perm os.FileMode) {
	o.t.Helper()
	path := filepath.Join(o.dir, "operator.json")
	write(o.t, path, text, perm)
	o.env = append(o.env, "POWERNODE_CONFIG="+path)
}

func same(*operatorapi.Credentials) {}

// TestOperatorRefuses: what an operator does wrong is named, with what to do, and the platform
// keeps nothing of it.
func TestOperatorRefuses(t *testing.T) {
	t.Parallel()
	p := platformWith(t, app("1"))
	p.Operator("node", "create", "there").OK(t)
	good := site("1").Layout(t)
	cases := []struct {
		name  string
		do    func(o *operating) result
		code  int
		wants []string
	}{
		{"no credential file", func(o *operating) result {
			o.env = append(o.env, "POWERNODE_CONFIG="+filepath.Join(o.dir, "missing.json"))
			return o.run("node", "list")
		}, 1, []string{"missing.json", "--config"}},
		{"no credential file anywhere", func(o *operating) result {
			o.env = append(o.env, "POWERNODE_CONFIG=")
			return o.run("node", "list")
		}, 1, []string{"/nonexistent/.config/powernode/operator.json", "--config"}},
		{"a credential file that others read", func(o *operating) result { o.config(same, 0o644); return o.run("node", "list") }, 1, []string{"operator.json", "0644", "chmod 600"}},
		{"a credential file of rubbish", func(o *operating) result { o.configText([]byte("rubbish"), 0o600); return o.run("node", "list") }, 1, []string{"operator.json"}},
		{"a credential file without a token", func(o *operating) result {
			o.config(func(c *operatorapi.Credentials) { c.Token = "" }, 0o600)
			return o.run("node", "list")
		}, 1, []string{"no token"}},
		{"a wrong token", func(o *operating) result {
			o.config(func(c *operatorapi.Credentials) { c.Token = strings.Repeat("x", len(c.Token)) }, 0o600)
			return o.run("node", "list")
		}, 5, []string{p.Listen, "token"}},
		{"a wrong token to publish", func(o *operating) result {
			o.config(func(c *operatorapi.Credentials) { c.Token = strings.Repeat("x", len(c.Token)) }, 0o600)
			return o.publish(good)
		}, 5, []string{p.Listen, "token"}},
		{"a platform that isn't there", func(o *operating) result {
			o.config(func(c *operatorapi.Credentials) { c.URL = "https://" + lab.OwnAddress(o.t) }, 0o600)
			return o.run("node", "list")
		}, 5, []string{"127.0.0.1:", "refused"}},
		{"another platform's CA", func(o *operating) result {
			o.config(func(c *operatorapi.Credentials) { c.CAPEM = string(pkitest.NewCA(o.t, "other").PEM()) }, 0o600)
			return o.run("node", "list")
		}, 5, []string{p.Listen, "CA"}},
		{"a platform with an expired certificate", func(o *operating) result {
			o.config(func(c *operatorapi.Credentials) { c.URL, c.CAPEM = expiredPlatform(o.t) }, 0o600)
			return o.run("node", "list")
		}, 5, []string{"validity", "clock"}},
		{"something that is no platform", func(o *operating) result {
			o.config(func(c *operatorapi.Credentials) { c.URL, c.CAPEM = otherServer(o.t) }, 0o600)
			return o.run("node", "list")
		}, 5, []string{"not a powernode platform"}},

		{"no key", func(o *operating) result { return o.publish(good, "--key", filepath.Join(o.dir, "none.key")) }, 1, []string{"none.key", "powernode key generate"}},
		{"the public key", func(o *operating) result { return o.publish(good, "--key", o.Key+".pub") }, 1, []string{"public"}},
		{"a key of rubbish", func(o *operating) result {
			write(o.t, filepath.Join(o.dir, "k"), []byte("rubbish"), 0o600)
			return o.publish(good, "--key", filepath.Join(o.dir, "k"))
		}, 1, []string{"signing key", "PEM"}},
		{"a wrong password", func(o *operating) result {
			write(o.t, filepath.Join(o.dir, "pw"), []byte("wrong\n"), 0o600)
			return o.publish(good, "--password-file", filepath.Join(o.dir, "pw"))
		}, 1, []string{"password"}},
		{"no password file", func(o *operating) result { return o.publish(good, "--password-file", filepath.Join(o.dir, "none")) }, 1, []string{"password", "none"}},
		{"no layout", func(o *operating) result { return o.publish(filepath.Join(o.dir, "none")) }, 1, []string{"none", "oci-layout"}},
		{"a directory that is no layout", func(o *operating) result { return o.publish(o.dir) }, 1, []string{"oci-layout"}},
		{"a layout without an image", func(o *operating) result { return o.publish(emptyLayout(o.t)) }, 1, []string{"holds no image"}},
		{"an image that is no module", func(o *operating) result {
			m := app("1")
			m.Undescribed = true
			return o.publish(m.Layout(o.t))
		}, 1, []string{"io.powernode.module.name"}},
		{"a layout with a damaged blob", func(o *operating) result {
			layout := site("1").Layout(o.t)
			damage(o.t, largestBlob(o.t, layout))
			return o.publish(layout)
		}, 2, []string{"blob", "is damaged"}},
		{"a layout with a missing blob", func(o *operating) result {
			layout := site("1").Layout(o.t)
			remove(o.t, largestBlob(o.t, layout))
			return o.publish(layout)
		}, 2, []string{"lacks the blob"}},
		{"two modules at once", func(o *operating) result { return o.publish(good, base("1").Layout(o.t)) }, 1, []string{"site 1", "base 1"}},
		{"one architecture twice", func(o *operating) result { return o.publish(good, site("1").Layout(o.t)) }, 1, []string{hostArch}},
		{"a version with other content", func(o *operating) result {
			m := app("1")
			m.Files["usr/lib/app/data"] = "other content under the same version"
			return o.publish(m.Layout(o.t))
		}, 1, []string{"app", "raise the module's version"}},
		{"a priority that is too high", func(o *operating) result { return o.publish(good, "--priority", "1000") }, 1, []string{"priority", "999"}},
		{"a variety that isn't one", func(o *operating) result { return o.publish(good, "--variety", "sub") }, 1, []string{"variety", "subscription"}},
		{"a repository that isn't one", func(o *operating) result { return o.publish(good, "--repository", "No Such/Name") }, 1, []string{"No Such/Name"}},
		{"a registry that isn't there", func(o *operating) result {
			return o.publish(good, "--no-register", "--repository", lab.OwnAddress(o.t)+"/modules/site")
		}, 5, []string{"127.0.0.1:", "refused"}},
		{"a registry that isn't the platform's", func(o *operating) result {
			return o.publish(good, "--repository", "registry.example/modules/site")
		}, 1, []string{"registry.example/modules/site", "--no-register"}},

		{"a node that is there", func(o *operating) result { return o.run("node", "create", "there") }, 1, []string{"there"}},
		{"a node's name that isn't one", func(o *operating) result { return o.run("node", "create", "Not_One") }, 1, []string{"Not_One"}},
		{"an architecture that isn't one", func(o *operating) result { return o.run("node", "create", "new", "--architecture", "z80") }, 1, []string{"z80", "amd64"}},
		{"a node that isn't there", func(o *operating) result { return o.run("node", "show", "absent") }, 1, []string{"absent"}},
		{"a token for a node that isn't there", func(o *operating) result { return o.run("token", "create", "absent") }, 1, []string{"absent"}},
		{"a token for no time", func(o *operating) result { return o.run("token", "create", "there", "--ttl", "0s") }, 1, []string{"0s"}},
		{"a token for ever", func(o *operating) result { return o.run("token", "create", "there", "--ttl", "99999h") }, 1, []string{"168h"}},
		{"a module that isn't there", func(o *operating) result { return o.run("assign", "there", "absent") }, 1, []string{"absent", "publish"}},
		{"an assignment to a node that isn't there", func(o *operating) result { return o.run("assign", "absent", "app") }, 1, []string{"absent"}},
		{"an unassignment of what isn't assigned", func(o *operating) result { return o.run("unassign", "there", "app") }, 1, []string{"app"}},
	}
	t.Run("case", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				o := &operating{p.on(t), t, tempDir(t), []string{"POWERNODE_CONFIG=" + p.Config, "POWERNODE_KEY_PASSWORD="}}
				c.do(o).Refused(t, c.code, c.wants...)
			})
		}
	})
	var modules operatorapi.ModuleList
	p.Operator("module", "list", "--output", "json").Into(t, &modules)
	if modules.Count != 1 || modules.Modules[0].Name != "app" {
		t.Errorf("half done: the platform has the modules %+v", modules)
	}
	var nodes operatorapi.NodeList
	p.Operator("node", "list", "--output", "json").Into(t, &nodes)
	if nodes.Count != 1 || nodes.Nodes[0].Modules != 0 {
		t.Errorf("half done: the platform has the nodes %+v", nodes)
	}
}

func emptyLayout(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(tempDir(t), "layout")
	l, err := ociimage.CreateLayout(dir)
	if err == nil {
		err = l.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// largestBlob returns the path of the largest file among a layout's blobs: its layer.
func largestBlob(t testing.TB, layout string) string {
	t.Helper()
	blobs, err := filepath.Glob(filepath.Join(layout, "blobs", "sha256", "*"))
	if err != nil || len(blobs) == 0 {
		t.Fatalf("no blobs in %s: %v", layout, err)
	}
	return slices.MaxFunc(blobs, func(a, b string) int { return cmp.Compare(len(read(t, a)), len(read(t, b))) })
}
