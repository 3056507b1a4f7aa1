package platform_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// TestAnotherMachine has heartbeats over one certificate come from another machine, or from the same virtual machine
// after a snapshot, without any boot that comes again: the operator is shown which of the two changed.
func TestAnotherMachine(t *testing.T) {
	first := nodeapi.Machine{DMIUUID: "4c4c4544-0042-3510-8052-b4c04f4e3232", VMGenerationID: "7d2f8f4e-90aa-4b2f-9a3b-5d1c2e3f4a5b"}
	for _, c := range []struct {
		name string
		now  nodeapi.Machine
		want []string // of the texts that call for attention
	}{
		{"the same", first, nil},
		{"says nothing", nodeapi.Machine{}, nil},
		{
			"another DMI UUID",
			nodeapi.Machine{DMIUUID: "5d5d5544-0042-3510-8052-b4c04f4e3232", VMGenerationID: first.VMGenerationID},
			[]string{"another machine uses this identity: its DMI UUID was " + first.DMIUUID + " when the certificate was first used and is 5d5d5544-0042-3510-8052-b4c04f4e3232 now, from 127.0.0.1"},
		},
		{
			"another VM generation ID",
			nodeapi.Machine{DMIUUID: first.DMIUUID, VMGenerationID: "8e308f4e-90aa-4b2f-9a3b-5d1c2e3f4a5b"},
			[]string{"this virtual machine was cloned, or restored from a snapshot: its generation ID was " + first.VMGenerationID + " when the certificate was first used and is 8e308f4e-90aa-4b2f-9a3b-5d1c2e3f4a5b now, from 127.0.0.1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := platformtest.Start(t)
			node := p.Enroll("web-1", "amd64")
			other := p.Enroll("web-2", "amd64")
			for _, machine := range []nodeapi.Machine{first, c.now, c.now} {
				hb := heartbeat()
				hb.Machine = machine
				p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, hb).Into(&nodeapi.HeartbeatResponse{})
			}
			p.Do(other, http.MethodPost, nodeapi.PathHeartbeat, heartbeat()).Into(&nodeapi.HeartbeatResponse{})

			list, err := p.Operator.Nodes(t.Context())
			if err != nil || list.Count != 2 {
				t.Fatalf("%+v, %v", list, err)
			}
			for _, n := range list.Nodes {
				want := c.want
				if n.Name != "web-1" {
					want = nil
				}
				if !slices.Equal(n.Attention, want) {
					t.Errorf("the list says of %s: %q", n.Name, n.Attention)
				}
			}
			d, err := p.Operator.Node(t.Context(), "web-1")
			if err != nil || !slices.Equal(d.Node.Attention, c.want) {
				t.Errorf("the node: %q, %v", d.Node.Attention, err)
			}
			// Once each, however often it is reported, for the node and in the platform's list of what happened.
			all, err := p.Operator.Events(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for what, events := range map[string][]operatorapi.Event{"the node": d.Events, "all": all.Events} {
				var texts []string
				for _, e := range events {
					if e.Kind == "identity.shared" {
						texts = append(texts, e.Text)
					}
				}
				if len(texts) != len(c.want) || len(texts) > 0 && !strings.Contains(texts[0], c.want[0]) {
					t.Errorf("events of %s: %q", what, texts)
				}
			}
		})
	}
}
