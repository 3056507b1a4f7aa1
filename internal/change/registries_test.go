package change

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/store"
)

// deadHost is a registry where nobody listens.
const deadHost = "127.0.0.1:1"

// outages are registries with one content, of which some can't be reached.
type outages struct {
	ociimage.Source
	down  []string
	asked []string
}

func (o *outages) Resolve(ctx context.Context, ref ociimage.Reference, arch string) (*ociimage.Image, error) {
	host, name, _ := strings.Cut(ref.Repository, "/")
	o.asked = append(o.asked, strings.TrimPrefix(name, "modules/"))
	if slices.Contains(o.down, host) {
		return nil, fault.New(fault.Retry, fault.Platform, "check that it can be reached", "ask %s: connection refused", host)
	}
	return o.Source.Resolve(ctx, ref, arch)
}

// layerless are registries that answer, and of which no layer comes where nobody listens.
type layerless struct {
	ociimage.Source
	layout *ociimage.Layout
}

func (c layerless) Resolve(ctx context.Context, ref ociimage.Reference, arch string) (*ociimage.Image, error) {
	image, err := c.layout.Resolve(ctx, ref, arch)
	if err == nil {
		image.Repository = ref.Repository
	}
	return image, err
}

func (c layerless) Attached(ctx context.Context, image *ociimage.Image) (ociimage.Attachments, error) {
	return c.layout.Attached(ctx, image)
}

// twoRegistries is a node that runs modules of two: base and site of one, app, door and tool of the other.
func twoRegistries(t *testing.T) *node {
	t.Helper()
	w := newWorld(t)
	for _, name := range []string{"base", "site"} {
		w.module(name, "1", map[string]string{"usr/" + name: long(name)})
	}
	w.host = deadHost
	for _, name := range []string{"app", "door", "tool"} {
		w.module(name, "1", map[string]string{"usr/" + name: long(name)})
	}
	return w.runs()
}

func (n *node) doFrom(source ociimage.Source, r Request) (*Result, error) {
	return n.changer(func(c *Config) { c.Reconciler = n.reconciler(func(c *reconcile.Config) { c.Source = source }) }).Do(n.t.Context(), r)
}

// TestOneRegistryIsDown: the modules of the others are updated, what is here stays, and a registry that can't be reached isn't asked for
// each of its modules.
func TestOneRegistryIsDown(t *testing.T) {
	n := twoRegistries(t)
	n.module("app", "2", map[string]string{"usr/app": long("app2")})
	n.module("new", "1", map[string]string{"usr/new": long("new")})
	n.host = "example.org"
	n.module("base", "2", map[string]string{"usr/base": long("base2")})
	registries := &outages{Source: n.layout, down: []string{deadHost}}
	for _, dry := range []bool{true, false} {
		registries.asked = nil
		r, err := n.doFrom(registries, Request{Kind: Update, DryRun: dry})
		if err != nil || changes(r) != "changed base 1 2" || len(r.Failed) != 4 || len(registries.asked) != 4 {
			t.Fatalf("dry run %t: %+v, %v, asked for %q", dry, r, err, registries.asked)
		}
		for _, f := range r.Failed {
			if !f.Unreached || !strings.Contains(f.Reason, deadHost) || (f.Kept == "1") == (f.Name == "new") {
				t.Errorf("dry run %t: %+v", dry, f)
			}
		}
	}
	n.is("one of two is down", 2, "app 1, base 2, door 1, site 1, tool 1")
	if r, err := n.doFrom(registries, Request{Kind: Update}); err != nil || r.Outcome != InStep || len(r.Failed) != 4 {
		t.Errorf("still: %+v, %v", r, err)
	}

	registries.down = append(registries.down, "example.org")
	before := n.state()
	if r, err := n.doFrom(registries, Request{Kind: Update}); fault.KindOf(err) != fault.Retry || fault.AreaOf(err) != fault.Platform || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("both are down: %+v, %v", r, err)
	}
	if r, err := n.doFrom(registries, Request{Kind: Update, DryRun: true}); fault.KindOf(err) != fault.Retry {
		t.Errorf("both are down, a dry run: %+v, %v", r, err)
	}
	n.is("both are down", 2, "app 1, base 2, door 1, site 1, tool 1")
	if after := n.state(); strings.Count(after, "\n") < strings.Count(before, "\n") {
		t.Errorf("something is gone:\n%s\nwas\n%s", after, before)
	}

	registries.down = nil
	if r, err := n.doFrom(registries, Request{Kind: Update}); err != nil || r.Outcome != WentLive || len(r.Failed) != 0 {
		t.Errorf("both are back: %+v, %v", r, err)
	}
	n.is("both are back", 3, "app 2, base 2, door 1, new 1, site 1, tool 1")
}

// TestAnOutageTakesNothingBack that is staged.
func TestAnOutageTakesNothingBack(t *testing.T) {
	n := twoRegistries(t)
	n.module("app", "2", map[string]string{"usr/app": long("app2")})
	if r := n.must(Request{Kind: Update, Stage: true}); r.Outcome != Staged {
		t.Fatalf("%+v", r)
	}
	r, err := n.doFrom(&outages{Source: n.layout, down: []string{deadHost}}, Request{Kind: Update, Stage: true})
	if err != nil || r.Outcome != AlreadyStaged || len(r.Failed) != 3 || n.pointer(store.Staged) != 2 {
		t.Errorf("%+v, %v; %d is staged", r, err, n.pointer(store.Staged))
	}
}

// TestAnOutageWithdrawsNothing: also where something else is wanted than what is staged, which can't be asked for.
func TestAnOutageWithdrawsNothing(t *testing.T) {
	n := twoRegistries(t)
	n.host = deadHost
	n.module("app", "2", map[string]string{"usr/app": long("app2")})
	if r := n.must(Request{Kind: Update, Stage: true}); r.Outcome != Staged {
		t.Fatalf("%+v", r)
	}
	n.module("app", "3", map[string]string{"usr/app": long("app3")})
	for _, dry := range []bool{true, false} {
		r, err := n.doFrom(&outages{Source: n.layout, down: []string{deadHost}}, Request{Kind: Update, DryRun: dry})
		if fault.KindOf(err) != fault.Retry || n.pointer(store.Staged) != 2 {
			t.Errorf("dry run %t: %+v, %v; %d is staged", dry, r, err, n.pointer(store.Staged))
		}
	}
}

// TestAnOutageIsNoRefusal: what is left of the wish in an outage may be a set that was found bad; the wish isn't.
func TestAnOutageIsNoRefusal(t *testing.T) {
	n := twoRegistries(t)
	n.host = "example.org"
	n.module("base", "2", map[string]string{"usr/base": long("base2")})
	n.must(Request{Kind: Update})
	n.must(Request{Kind: Rollback})
	if _, err := n.do(Request{Kind: Update}); fault.KindOf(err) != fault.Refuse {
		t.Fatalf("what was gone back from: %v", err)
	}
	n.host = deadHost
	n.module("app", "2", map[string]string{"usr/app": long("app2")})
	if r, err := n.doFrom(&outages{Source: n.layout, down: []string{deadHost}}, Request{Kind: Update}); fault.KindOf(err) != fault.Retry {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestAPullIsCutOff: what can't be pulled keeps nobody else back, and is an outage where there is nothing else to do.
func TestAPullIsCutOff(t *testing.T) {
	n := twoRegistries(t)
	n.host = deadHost
	n.module("app", "2", map[string]string{"usr/app": long("app2")})
	client := ociimage.NewClient(ociimage.Options{Retry: ociimage.Retrying{Attempts: 1}})
	t.Cleanup(client.Close)
	source := layerless{client, n.layout}
	for _, dry := range []bool{true, false} {
		if r, err := n.doFrom(source, Request{Kind: Update, DryRun: dry}); fault.KindOf(err) != fault.Retry || fault.AreaOf(err) != fault.Platform {
			t.Errorf("nothing else is to be done, dry run %t: %+v, %v", dry, r, err)
		}
	}
	n.is("cut off", 1, "app 1, base 1, door 1, site 1, tool 1")
	if r, err := n.doFrom(source, Request{Kind: Detach, Modules: []string{"site"}}); err != nil || r.Outcome != WentLive {
		t.Fatalf("detach: %+v, %v", r, err)
	}
	r, err := n.doFrom(source, Request{Kind: Attach, Modules: []string{"site", "app"}})
	if err != nil || r.Outcome != WentLive || changes(r) != "added site 1" || len(r.Failed) != 1 || !r.Failed[0].Unreached || r.Failed[0].Kept != "1" {
		t.Errorf("beside what is here: %+v, %v", r, err)
	}
	n.is("beside what is here", r.Generation, "app 1, base 1, door 1, site 1, tool 1")
}
