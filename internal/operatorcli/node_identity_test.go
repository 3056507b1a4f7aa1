package operatorcli

import (
	"net/http"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// TestAnotherMachineIsShown: a heartbeat of another DMI UUID, and one of another VM generation ID, over the certificate
// that was first used by one machine.
func TestAnotherMachineIsShown(t *testing.T) {
	p := platformtest.Start(t)
	o := operator{t, p}
	for name, c := range map[string]struct {
		now  nodeapi.Machine
		want string
	}{
		"clone": {nodeapi.Machine{DMIUUID: "dmi-2", VMGenerationID: "vm-1"}, "another machine uses this identity: its DMI UUID was dmi-1 when the certificate was first used and is dmi-2 now, from 127.0.0.1"},
		"snapshot": {
			nodeapi.Machine{DMIUUID: "dmi-1", VMGenerationID: "vm-2"},
			"this virtual machine was cloned, or restored from a snapshot: its generation ID was vm-1 when the certificate was first used and is vm-2 now, from 127.0.0.1",
		},
	} {
		node := p.Enroll(name, "amd64")
		var before string
		for _, machine := range []nodeapi.Machine{{DMIUUID: "dmi-1", VMGenerationID: "vm-1"}, c.now} {
			before = o.ok("node", "show", name)
			p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, nodeapi.Heartbeat{
				BootID: "a", AgentVersion: "v9", Architecture: "amd64", MountState: nodeapi.MountMounted, Machine: machine,
			}).Into(&nodeapi.HeartbeatResponse{})
		}
		if strings.Contains(before, "attention") || strings.Contains(before, "identity.shared") {
			t.Errorf("before the change:\n%s", before)
		}
		var attention, event bool
		table := o.ok("node", "show", name)
		for line := range strings.Lines(table) {
			attention = attention || strings.HasPrefix(line, "attention") && strings.Contains(line, c.want+"; if you know why, powernode node approve "+name+" --attention")
			event = event || strings.Contains(line, "identity.shared") && strings.Contains(line, c.want)
		}
		if !attention || !event {
			t.Errorf("attention %v, event %v in\n%s", attention, event, table)
		}
		for line := range strings.Lines(o.ok("node", "list")) {
			if strings.HasPrefix(line, name+" ") && !strings.Contains(line, "identity") {
				t.Errorf("the list: %s", line)
			}
		}
	}
}

// TestNodeIdentityCommands: two machines with one identity, a certificate that waits, and a revocation, as
// the operator sees and settles them.
func TestNodeIdentityCommands(t *testing.T) {
	p := platformtest.Start(t)
	o := operator{t, p}
	node := p.Enroll("web-1", "amd64")
	beat := func(boot string) {
		t.Helper()
		p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, nodeapi.Heartbeat{
			BootID: boot, AgentVersion: "v9", Architecture: "amd64", MountState: nodeapi.MountMounted, Machine: nodeapi.Machine{DMIUUID: "dmi-" + boot},
		}).Into(&nodeapi.HeartbeatResponse{})
	}
	shows := func(command []string, wanted ...string) {
		t.Helper()
		got := o.ok(command...)
		for _, want := range wanted {
			if !strings.Contains(got, want) {
				t.Errorf("%v: no %q in\n%s", command, want, got)
			}
		}
	}
	refused := func(want string, args ...string) {
		t.Helper()
		if code, out, errs := o.run(args...); code != 1 || out != "" || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: exit code %d, %q, %q; want %q", args, code, out, errs, want)
		}
	}
	refused("nothing of node web-1 waits for an approval; see powernode node show web-1", "node", "approve", "web-1")
	for _, boot := range []string{"a", "b", "a"} {
		beat(boot)
	}
	shows([]string{"node", "list"}, "WAITS", "identity")
	shows([]string{"node", "show", "web-1"}, "attention", "two machines use this identity: boot a was followed by boot b and reports again, from 127.0.0.1",
		"its DMI UUID was dmi-a", "powernode node approve web-1 --attention", "identity.shared", "in force", "enroll")
	shows([]string{"node", "approve", "web-1"}, "cleared", "two machines use this identity")
	if got := o.ok("node", "list"); strings.Contains(got, "identity") {
		t.Error(got)
	}

	// A backup comes back: its certificate was superseded meanwhile.
	key := p.Key()
	var successor nodeapi.EnrollResponse
	p.Refresh(node, key).Into(&successor)
	p.Do(p.With(node, successor.CertPEM, key), http.MethodGet, nodeapi.PathModules, nil).Into(&nodeapi.ModuleList{})
	mine, theirs := p.Key(), p.Key()
	for range 2 {
		p.Renew(node, mine).Into(&nodeapi.RenewResponse{})
	}
	shows([]string{"node", "list"}, "renewal")
	shows([]string{"node", "show", "web-1"}, "RENEWAL", "waiting", "superseded", "127.0.0.1", "dmi-1", "renewal.waiting", "powernode node approve web-1 --renewal ")
	// Both at once: neither is settled unseen.
	current := p.With(node, successor.CertPEM, key)
	for _, boot := range []string{"c", "b", "c"} {
		p.Do(current, http.MethodPost, nodeapi.PathHeartbeat, nodeapi.Heartbeat{
			BootID: boot, AgentVersion: "v9", Architecture: "amd64", MountState: nodeapi.MountMounted,
		}).Into(&nodeapi.HeartbeatResponse{})
	}
	refused("--attention says that you know", "node", "approve", "web-1")
	shows([]string{"node", "approve", "web-1", "--attention"}, "cleared", "two machines use this identity")
	shows([]string{"node", "show", "web-1"}, "waiting")
	refused("nothing of node web-1 waits", "node", "approve", "web-1", "--attention")
	refused("see powernode node approve --help", "node", "approve", "web-1", "--attention", "--deny")
	refused("see powernode node approve --help", "node", "approve", "web-1", "--unfiled")
	refused("see powernode node approve --help", "node", "approve")
	refused("--dry-run goes with --unfiled only", "node", "approve", "web-1", "--dry-run")
	shows([]string{"node", "approve", "--unfiled"}, "no renewal of a certificate that wasn't on file waits")
	p.Renew(node, theirs).Into(&nodeapi.RenewResponse{})
	refused("several renewals of node web-1 wait: only one machine can be it; choose one of powernode node show web-1 with --renewal", "node", "approve", "web-1")
	var shown operatorapi.NodeDetail
	o.into(&shown, "node", "show", "web-1")
	var done operatorapi.ApproveResult
	o.into(&done, "node", "approve", "web-1", "--renewal", shown.Renewals[0].ID[:8])
	if len(done.Renewals) != 1 || done.Renewals[0].ID != shown.Renewals[0].ID {
		t.Errorf("%+v", done)
	}
	shows([]string{"node", "approve", "web-1", "--deny"}, "denied", "the renewal of certificate "+shown.Certificates[1].Serial)
	refused("nothing of node web-1 waits", "node", "approve", "web-1", "--deny")

	refused(`node web-1 has no certificate "XX"; see powernode node show web-1`, "node", "revoke", "web-1", "--serial", "XX")
	shows([]string{"node", "revoke", "web-1", "--serial", shown.Certificates[0].Serial}, shown.Certificates[0].Serial)
	shows([]string{"node", "revoke", "web-1"}, shown.Certificates[1].Serial)
	shows([]string{"node", "revoke", "web-1"}, "none: they had ended before")
	shows([]string{"node", "show", "web-1"}, "revoked", "certificate.revoked")
	refused("there is no node", "node", "revoke", "nobody")
	refused("see powernode node revoke --help", "node", "revoke")
}
