package platform_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// TestNodeStates takes a node through every state.
func TestNodeStates(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	p.Publish(platformtest.Module{Name: "base", Version: "1", Files: map[string]string{"usr/x": "1"}})
	node := p.Enroll("web", "amd64")
	other := p.Enroll("other", "amd64")
	is := func(want operatorapi.NodeState) {
		t.Helper()
		shown, err := p.Operator.Node(ctx, "web")
		if err != nil || shown.Node.State != want || (shown.Node.StateReason == "") != (want == operatorapi.StateInStep) {
			t.Errorf("%s, %q, want %s: %v", shown.Node.State, shown.Node.StateReason, want, err)
		}
		for _, state := range operatorapi.NodeStates() {
			list, err := p.Operator.NodesIn(ctx, state)
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, n := range list.Nodes {
				found = found || n.Name == "web"
				if n.State != state {
					t.Errorf("%s is among those that are %s, and is %s", n.Name, state, n.State)
				}
			}
			if found != (state == want) || list.Count != len(list.Nodes) {
				t.Errorf("among those that are %s: %t", state, found)
			}
		}
	}
	told := func(n *platformtest.Node) string {
		t.Helper()
		var list nodeapi.ModuleList
		p.Do(n, http.MethodGet, nodeapi.PathModules, nil).Into(&list)
		return list.RootDigest
	}
	runs := func(root string) {
		t.Helper()
		mount := nodeapi.MountMounted
		if root == "" {
			mount = nodeapi.MountUnmounted
		}
		p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, nodeapi.Heartbeat{
			BootID: "b1", AgentVersion: "v1", Architecture: "amd64", MountState: mount, RootDigest: root,
		}).Into(&nodeapi.HeartbeatResponse{})
	}
	is(operatorapi.StateUnknown)
	runs("")
	is(operatorapi.StateInStep) // nothing is assigned
	for _, name := range []string{"web", "other"} {
		if _, err := p.Operator.Assign(ctx, name, operatorapi.AssignmentCreate{Module: "base"}); err != nil {
			t.Fatal(err)
		}
	}
	is(operatorapi.StateBehind)
	first := told(node)
	runs(first)
	is(operatorapi.StateInStep)
	p.Publish(platformtest.Module{Name: "base", Version: "2", Files: map[string]string{"usr/x": "2"}})
	is(operatorapi.StateBehind)
	// The other node hears of the next root and this one doesn't: what it is told to another explains nothing here.
	p.Publish(platformtest.Module{Name: "base", Version: "3", Files: map[string]string{"usr/x": "3"}})
	third := told(other)
	p.Publish(platformtest.Module{Name: "base", Version: "4", Files: map[string]string{"usr/x": "4"}})
	runs(third)
	is(operatorapi.StateDrifted)
	runs(strings.Repeat("ab", 32))
	is(operatorapi.StateDrifted)
	runs(first)
	is(operatorapi.StateBehind)
	runs(told(node))
	is(operatorapi.StateInStep)
	p.Clock.Advance(operatorapi.StaleAfter + 1e9)
	is(operatorapi.StateSilent)
	p = p.Restart()
	is(operatorapi.StateSilent)
	if _, err := p.Operator.NodesIn(ctx, "lost"); err == nil || !strings.Contains(err.Error(), "in-step") {
		t.Errorf("%v", err)
	}
}
