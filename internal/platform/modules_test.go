package platform_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/compose"
	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/tree"
)

type broken struct {
	change func(*platformtest.Module)
	want   string
}

// brokenModules are ways in which a pushed image isn't the module that it says it is.
func brokenModules() map[string]broken {
	annotation := func(key, value string) func(*platformtest.Module) {
		return func(m *platformtest.Module) {
			m.Annotations = func(a map[string]string) {
				a[key] = value
				if value == "" {
					delete(a, key)
				}
			}
		}
	}
	config := func(change func(*ocispec.Image)) func(*platformtest.Module) {
		return func(m *platformtest.Module) { m.Config = change }
	}
	return map[string]broken{
		"another seal":    {annotation(module.AnnotationSeal, strings.Repeat("a", 64)), "but its annotation says aaaa"},
		"no seal":         {annotation(module.AnnotationSeal, ""), "has no seal"},
		"a seal of zeros": {annotation(module.AnnotationSeal, strings.Repeat("0", 64)), "a seal that is none"},
		"a short seal":    {annotation(module.AnnotationSeal, "abc"), "a seal that is none"},
		"another name":    {annotation(module.AnnotationName, "other"), "its manifest.yaml is of m, and its annotation says other"},
		"no name":         {annotation(module.AnnotationName, ""), "annotation " + module.AnnotationName},
		"a path as name":  {annotation(module.AnnotationName, "../m"), "annotation " + module.AnnotationName},
		"no version":      {annotation(module.AnnotationVersion, ""), "annotation " + module.AnnotationVersion},
		"no manifest":     {config(func(c *ocispec.Image) { delete(c.Config.Labels, module.LabelManifest) }), "it is an image, but no module"},
		"broken manifest": {config(func(c *ocispec.Image) { c.Config.Labels[module.LabelManifest] = "schema_version: 7" }), "its manifest.yaml"},
		"another manifest in the label": {config(func(c *ocispec.Image) {
			c.Config.Labels[module.LabelManifest] += "mask: [/etc/shadow]\n"
		}), "isn't the manifest.yaml of the label"},
		"windows":       {config(func(c *ocispec.Image) { c.OS = "windows" }), "want linux/amd64, linux/arm64 or linux/all"},
		"mips":          {config(func(c *ocispec.Image) { c.Architecture = "mips" }), "want linux/amd64, linux/arm64 or linux/all"},
		"another layer": {config(func(c *ocispec.Image) { c.RootFS.DiffIDs[0] = "sha256:" + "00" }), "diff_id"},
		"a layer of another content": {config(func(c *ocispec.Image) {
			c.RootFS.DiffIDs[0] = ocispec.DescriptorEmptyJSON.Digest
		}), "layer"},
		"no manifest file": {func(m *platformtest.Module) {
			m.Root = func(root *tree.Node) { root.Lookup("usr/lib/powernode/modules").RemoveChild("m") }
		}, "isn't the manifest.yaml of the label"},
		"a symlink as manifest file": {func(m *platformtest.Module) {
			m.Root = func(root *tree.Node) {
				root.Lookup("usr/lib/powernode/modules/m").SetChild("manifest.yaml", &tree.Node{Kind: tree.Symlink, Mode: 0o777, Target: "/etc/passwd"})
			}
		}, "isn't the manifest.yaml of the label"},
	}
}

// TestIndex registers a module of two architectures: each node gets its own root.
func TestIndex(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	build := func(architecture, version string) platformtest.Module {
		return platformtest.Module{Name: "multi", Version: version, Architecture: architecture, Files: map[string]string{"usr/arch": architecture}}
	}
	m, err := p.Operator.RegisterModule(ctx, p.PushIndex("modules/multi", build("amd64", "1"), build("arm64", "1")))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Images) != 2 || m.Images[0].Architecture != "amd64" || m.Images[0].Seal == m.Images[1].Seal {
		t.Errorf("%+v", m)
	}
	roots := map[string]bool{}
	for _, architecture := range []string{"amd64", "arm64"} {
		node := p.Enroll(architecture, architecture)
		if _, err := p.Operator.Assign(ctx, architecture, operatorapi.AssignmentCreate{Module: "multi"}); err != nil {
			t.Fatal(err)
		}
		var list nodeapi.ModuleList
		p.Do(node, http.MethodGet, nodeapi.PathModules, nil).Into(&list)
		if list.Modules[0].Digest != m.Digest || len(list.RootDigest) != 64 {
			t.Errorf("%+v", list)
		}
		roots[list.RootDigest] = true
	}
	if len(roots) != 2 {
		t.Errorf("roots %v", roots)
	}
	for name, modules := range map[string][]platformtest.Module{
		"different modules":    {build("amd64", "1"), build("arm64", "2")},
		"the same twice":       {build("amd64", "3"), build("amd64", "3")},
		"nothing for any node": {},
	} {
		if _, err := p.Operator.RegisterModule(ctx, p.PushIndex("modules/multi", modules...)); err == nil {
			t.Errorf("%s: registered", name)
		}
	}

	// Before a node's architecture is known there is no root to expect, and the operator is told.
	if _, err := p.Operator.CreateNode(ctx, operatorapi.NodeCreate{Name: "any"}); err != nil {
		t.Fatal(err)
	}
	list, err := p.Operator.Assign(ctx, "any", operatorapi.AssignmentCreate{Module: "multi"})
	if err != nil || list.ExpectedRootDigest != "" || !strings.Contains(list.ExpectedRootError, "architecture") {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestExpectedRoot compares the platform's root digest with one composed here as a node does it.
func TestExpectedRoot(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	modules := []platformtest.Module{
		{Name: "base", Version: "1", Files: map[string]string{"etc/motd": "base", "usr/bin/tool": strings.Repeat("tool", 1000), "var/log/x": "x", "run/pid": "1"}},
		{Name: "site", Version: "1", Manifest: "mask: [/var/log]\n", Files: map[string]string{"etc/motd": "site", "usr/share/page": "page"}},
	}
	var inputs []compose.Input
	for i, m := range modules {
		in := p.Push(m)
		in.Priority = i
		out, err := p.Operator.RegisterModule(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		root, _ := m.Tree()
		if root, err = ociimage.Canonical(root); err != nil {
			t.Fatal(err)
		}
		manifest, err := module.ParseManifest([]byte(m.ManifestText()))
		if err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, compose.Input{Name: m.Name, Version: m.Version, EffectivePriority: out.EffectivePriority, Root: root, Mask: manifest.Mask, Protected: manifest.ProtectedSpec})
	}
	result, err := compose.Compose(inputs)
	if err != nil {
		t.Fatal(err)
	}
	want, err := composefs.Digest(result.Root, composefs.V1)
	if err != nil {
		t.Fatal(err)
	}

	images, err := filepath.Glob(filepath.Join(p.Dir, "modules", "*"))
	if err != nil || len(images) != 2 {
		t.Fatalf("%v, %v", images, err)
	}
	roots := func(name string) string {
		t.Helper()
		if _, err := p.Operator.CreateNode(ctx, operatorapi.NodeCreate{Name: name, Architecture: "amd64"}); err != nil {
			t.Fatal(err)
		}
		order := []string{"base", "site"}
		if name == "reversed" {
			order = []string{"site", "base"}
		}
		var list operatorapi.AssignmentList
		for _, m := range order {
			if list, err = p.Operator.Assign(ctx, name, operatorapi.AssignmentCreate{Module: m}); err != nil {
				t.Fatal(err)
			}
		}
		return list.ExpectedRootDigest
	}
	for _, name := range []string{"first", "reversed"} {
		if got := roots(name); got != want.String() {
			t.Errorf("%s: root %s, want %s", name, got, want)
		}
	}
	// What the platform remembers can be lost: it is computed again, from the layers if need be.
	for name, lose := range map[string]func(){
		"images-lost": func() {
			for _, image := range images {
				if err := os.Remove(image); err != nil {
					t.Fatal(err)
				}
			}
		},
		"images-damaged": func() {
			for _, image := range images {
				if err := os.WriteFile(image, []byte("damaged"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		execute(t, p, "DELETE FROM roots")
		lose()
		if got := roots(name); got != want.String() {
			t.Errorf("%s: root %s, want %s", name, got, want)
		}
	}
}

// TestNoComposition assigns modules that can't be together: the assignments stand, the operator
// and the node learn that there is no root, and why.
func TestNoComposition(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	p.Publish(platformtest.Module{Name: "owner", Version: "1", Manifest: "protected_spec: [/etc/secret]\n", Files: map[string]string{"usr/x": "x", "etc/secret": "s"}})
	p.Publish(platformtest.Module{Name: "intruder", Version: "1", Files: map[string]string{"usr/y": "y", "etc/secret": "other"}})
	node := p.Enroll("n", "amd64")
	var list operatorapi.AssignmentList
	for _, name := range []string{"owner", "intruder"} {
		var err error
		if list, err = p.Operator.Assign(ctx, "n", operatorapi.AssignmentCreate{Module: name}); err != nil {
			t.Fatal(err)
		}
	}
	if list.ExpectedRootDigest != "" || !strings.Contains(list.ExpectedRootError, "which module owner protects") {
		t.Errorf("%+v", list)
	}
	var modules nodeapi.ModuleList
	p.Do(node, http.MethodGet, nodeapi.PathModules, nil).Into(&modules)
	if modules.Count != 2 || modules.RootDigest != "" {
		t.Errorf("%+v", modules)
	}
	// A module whose layers are lost is one node's trouble, and not that of who lists nodes.
	execute(t, p, "DELETE FROM roots")
	for _, name := range []string{"modules", "registry"} {
		if err := os.RemoveAll(filepath.Join(p.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	nodes, err := p.Operator.Nodes(ctx)
	if err != nil || nodes.Count != 1 || !strings.Contains(nodes.Nodes[0].ExpectedRootError, "see its log") {
		t.Errorf("%+v, %v", nodes, err)
	}
}

// TestManyAskAtOnce lets many nodes ask for a root that isn't computed yet.
func TestManyAskAtOnce(t *testing.T) {
	p := platformtest.Start(t)
	p.Publish(platformtest.Module{Name: "base", Version: "1", Files: map[string]string{"usr/x": "x"}})
	node := p.Enroll("n", "amd64")
	if _, err := p.Operator.Assign(t.Context(), "n", operatorapi.AssignmentCreate{Module: "base"}); err != nil {
		t.Fatal(err)
	}
	execute(t, p, "DELETE FROM roots")
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			var list nodeapi.ModuleList
			p.Do(node, http.MethodGet, nodeapi.PathModules, nil).Into(&list)
			if len(list.RootDigest) != 64 {
				t.Errorf("%+v", list)
			}
		})
	}
	wg.Wait()
}

// TestHeartbeatRefused sends what no agent would say.
func TestHeartbeatRefused(t *testing.T) {
	p := platformtest.Start(t)
	node := p.Enroll("n", "amd64")
	many := map[string]string{}
	for i := range 2001 {
		many[strings.Repeat("x", i%60+1)+string(rune('a'+i%26))+strings.Repeat("y", i/60)] = "sha256:" + strings.Repeat("a", 64)
	}
	for name, tc := range map[string]struct {
		change func(*nodeapi.Heartbeat)
		status int
	}{
		"good": {func(*nodeapi.Heartbeat) {}, 200},
		"little": {func(hb *nodeapi.Heartbeat) {
			*hb = nodeapi.Heartbeat{BootID: "b", AgentVersion: "v", Architecture: "arm64", MountState: "unmounted"}
		}, 200},
		"no boot id":         {func(hb *nodeapi.Heartbeat) { hb.BootID = "" }, 400},
		"no version":         {func(hb *nodeapi.Heartbeat) { hb.AgentVersion = "" }, 400},
		"escape sequence":    {func(hb *nodeapi.Heartbeat) { hb.AgentVersion = "\x1b[2J" }, 422},
		"line break":         {func(hb *nodeapi.Heartbeat) { hb.LoadAverage = "1\n2" }, 422},
		"long boot id":       {func(hb *nodeapi.Heartbeat) { hb.BootID = strings.Repeat("x", 65) }, 422},
		"architecture":       {func(hb *nodeapi.Heartbeat) { hb.Architecture = "x86_64" }, 422},
		"mount state":        {func(hb *nodeapi.Heartbeat) { hb.MountState = "fine" }, 422},
		"root digest":        {func(hb *nodeapi.Heartbeat) { hb.RootDigest = "sha256:x" }, 422},
		"negative uptime":    {func(hb *nodeapi.Heartbeat) { hb.UptimeSeconds = -1 }, 422},
		"negative memory":    {func(hb *nodeapi.Heartbeat) { hb.MemoryFreeKB = -1 }, 422},
		"endless generation": {func(hb *nodeapi.Heartbeat) { hb.Generation = 1 << 63 }, 422},
		"digest of a module": {func(hb *nodeapi.Heartbeat) { hb.ModuleDigests = map[string]string{"a": "b"} }, 422},
		"long ID of a module": {func(hb *nodeapi.Heartbeat) {
			hb.ModuleDigests = map[string]string{strings.Repeat("a", 65): "sha256:" + strings.Repeat("a", 64)}
		}, 422},
		"many remarks":     {func(hb *nodeapi.Heartbeat) { hb.Remarks = make([]string, 17) }, 422},
		"remark of lines":  {func(hb *nodeapi.Heartbeat) { hb.Remarks = []string{"a\nb"} }, 422},
		"remark of length": {func(hb *nodeapi.Heartbeat) { hb.Remarks = []string{strings.Repeat("x", 1001)} }, 422},
		"many modules":     {func(hb *nodeapi.Heartbeat) { hb.ModuleDigests = many }, 422},
		"huge":             {func(hb *nodeapi.Heartbeat) { hb.LoadAverage = strings.Repeat("x", 600<<10) }, 413},
	} {
		hb := heartbeat()
		tc.change(&hb)
		if a := p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, hb); a.Status != tc.status {
			t.Errorf("%s: %d %.200s", name, a.Status, a.Body)
		}
	}
	// Fields that this platform doesn't know come from a newer agent.
	a := p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, strings.NewReader(`{"boot_id":"b","agent_version":"v","architecture":"amd64","mount_state":"mounted","new_field":[1]}`))
	if a.Status != 200 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}
