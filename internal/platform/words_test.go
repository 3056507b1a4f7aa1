package platform_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// That most modules may go stands from the operator's word until the node runs none of them any more.
func TestRemoveMostStandsUntilItIsDone(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	ids := make(map[string]string)
	node := p.Enroll("web-1", "amd64")
	for _, name := range []string{"a", "b", "c"} {
		m := p.Publish(platformtest.Module{Name: name, Version: "1.0", Files: map[string]string{"etc/" + name: name}})
		ids[name] = m.ID
		if _, err := p.Operator.Assign(ctx, "web-1", operatorapi.AssignmentCreate{Module: name}); err != nil {
			t.Fatal(err)
		}
	}
	listed := func() nodeapi.ModuleList {
		t.Helper()
		var list nodeapi.ModuleList
		p.Do(node, http.MethodGet, nodeapi.PathModules, nil).Into(&list)
		return list
	}
	beat := func(mount nodeapi.MountState, names ...string) {
		t.Helper()
		hb := heartbeat()
		hb.MountState, hb.ModuleDigests = mount, map[string]string{"local": sum([]byte("attached on the node"))}
		for _, name := range names {
			hb.ModuleDigests[ids[name]] = sum([]byte(name))
		}
		if a := p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, hb); a.Status != http.StatusOK {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
	}

	beat(nodeapi.MountMounted, "a", "b", "c")
	if _, err := p.Operator.Unassign(ctx, "web-1", "b"); err != nil || listed().RemoveMost {
		t.Errorf("nobody said so: %v", err)
	}
	// Said for one that is gone already, too: that is how it is said once the node has refused.
	for _, name := range []string{"b", "c"} {
		if got, err := p.Operator.UnassignMost(ctx, "web-1", name); err != nil || !got.RemoveMost {
			t.Fatalf("%s: %+v, %v", name, got, err)
		}
	}
	for _, still := range []func(){
		func() { beat(nodeapi.MountMounted, "a", "b", "c") },
		func() { beat(nodeapi.MountMounted, "a", "c") },
		func() { beat(nodeapi.MountUnmounted) },
		func() { beat(nodeapi.MountTransitioning, "a") },
	} {
		still()
		if list := listed(); !list.RemoveMost || list.Count != 1 {
			t.Errorf("%+v", list)
		}
	}
	if shown, err := p.Operator.Node(ctx, "web-1"); err != nil || !shown.RemoveMost {
		t.Errorf("%+v, %v", shown, err)
	}
	beat(nodeapi.MountMounted, "a")
	if listed().RemoveMost {
		t.Error("it stands after the change")
	}
	shown, err := p.Operator.Node(ctx, "web-1")
	if err != nil || shown.RemoveMost {
		t.Errorf("%+v, %v", shown, err)
	}
	if said, done := kinds(shown.Events, "removal.allowed"), kinds(shown.Events, "removal.done"); said != 1 || done != 1 {
		t.Errorf("%d and %d events: %+v", said, done, shown.Events)
	}
}

func kinds(events []operatorapi.Event, kind string) int {
	return len(slices.DeleteFunc(slices.Clone(events), func(e operatorapi.Event) bool { return e.Kind != kind }))
}

// A downgrade is allowed to the version that is current when it is said, at that node, until it is taken back.
func TestDowngradeIsAllowedToOneVersion(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	publish := func(version string) {
		p.Publish(platformtest.Module{Name: "m", Version: version, Files: map[string]string{"etc/version": version}})
	}
	publish("1.0")
	node, other := p.Enroll("web-1", "amd64"), p.Enroll("web-2", "amd64")
	assign := func(name string, allow *bool) {
		t.Helper()
		if _, err := p.Operator.Assign(ctx, name, operatorapi.AssignmentCreate{Module: "m", AllowDowngrade: allow}); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what string, want bool) {
		t.Helper()
		var list, theirs nodeapi.ModuleList
		p.Do(node, http.MethodGet, nodeapi.PathModules, nil).Into(&list)
		p.Do(other, http.MethodGet, nodeapi.PathModules, nil).Into(&theirs)
		if list.Modules[0].AllowDowngrade != want || theirs.Modules[0].AllowDowngrade {
			t.Errorf("%s: %+v, the other node %+v", what, list.Modules, theirs.Modules)
		}
		var detail nodeapi.ModuleDetail
		p.Do(node, http.MethodGet, nodeapi.PathModules+"/"+list.Modules[0].ID, nil).Into(&detail)
		if detail.Module.AllowDowngrade != want {
			t.Errorf("%s: %+v", what, detail)
		}
	}
	yes, no := true, false
	assign("web-1", nil)
	assign("web-2", nil)
	expect("nobody said so", false)
	assign("web-1", &yes)
	expect("allowed", true)
	assign("web-1", nil)
	expect("assigned again", true)
	publish("0.9")
	expect("another version", false)
	publish("1.0")
	expect("the version that was meant", true)
	assign("web-1", &no)
	expect("taken back", false)
	assign("web-1", &yes)
	if _, err := p.Operator.Unassign(ctx, "web-1", "m"); err != nil {
		t.Fatal(err)
	}
	assign("web-1", nil)
	expect("a new assignment", false)
	shown, err := p.Operator.Node(ctx, "web-1")
	if err != nil || kinds(shown.Events, "downgrade.allowed") != 2 || kinds(shown.Events, "downgrade.taken_back") != 1 {
		t.Errorf("%+v, %v", shown.Events, err)
	}
}
