package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// credentialsSaid is what `status --output json` says of the credentials.
type credentialsSaid struct {
	Situation, Reason, Hint, Serial string
	NotAfter                        time.Time `json:"not_after"`
	Bundle                          string    `json:"ca_bundle_sha256"`
	Unused                          bool
}

// credentials returns what the node says of its credentials.
func (s *system) credentials() credentialsSaid {
	s.t.Helper()
	r := s.agent("status", "--output", "json")
	if r.Code == 8 {
		r.Code = 0
	}
	var doc struct{ Credentials *credentialsSaid }
	r.Into(s.t, &doc)
	if doc.Credentials == nil {
		s.t.Fatalf("status says nothing of the credentials:\n%s", r.Stdout)
	}
	return *doc.Credentials
}

// serve starts the agent as the service that it is on a node.
func (s *system) serve() {
	s.t.Helper()
	if a := s.do("start", "", "service", boot.AgentPath, "service", "--reconcile=off"); a.Error != "" {
		s.t.Fatal(a.Error)
	}
}

// served ends the service, in order, and returns what it said.
func (s *system) served() string {
	s.t.Helper()
	a := s.do("stop", "", "service")
	if a.Code != 0 || a.Error != "" {
		s.t.Errorf("the service ends with %d %s:\n%s", a.Code, a.Error, a.Stderr)
	}
	return a.Stderr
}

// said is what the service has said so far.
func (s *system) said() string {
	s.t.Helper()
	return s.read("/run/service.log")
}

// patience is when a test gives up on what never comes: ten heartbeats, of which a service that was refused lets four pass.
const patience = 5 * time.Minute

// await waits until something is so.
func (s *system) await(what string, so func() bool) {
	s.t.Helper()
	for begun := time.Now(); !so(); {
		select {
		case <-s.process.Done:
			s.t.Fatalf("waiting until %s: the system is gone\n%s", what, s.console())
		case <-tick():
		}
		if time.Since(begun) > patience {
			shown := s.p.Operator("node", "show", s.name)
			s.t.Fatalf("it is never so that %s\n%s%+v\n%s", what, s.said(), s.credentials(), shown.Stdout)
		}
	}
}

// awaitSaid waits until the service says that.
func (s *system) awaitSaid(words string) {
	s.t.Helper()
	s.await("the service says "+words, func() bool { return strings.Contains(s.said(), words) })
}

// certificate is what the platform has on file of the node's certificate of that serial number.
func (n *node) certificate(serial string) operatorapi.Certificate {
	n.t.Helper()
	for _, c := range n.detail().Certificates {
		if c.Serial == strings.ToUpper(serial) {
			return c
		}
	}
	return operatorapi.Certificate{}
}

// happened says whether there is an event of that kind at the node, with those words.
func (n *node) happened(kind, words string) bool {
	n.t.Helper()
	return slices.ContainsFunc(n.detail().Events, func(e operatorapi.Event) bool { return e.Kind == kind && strings.Contains(e.Text, words) })
}

// authorities are the platform's.
func (p *platform) authorities() operatorapi.CAList {
	p.T.Helper()
	var list operatorapi.CAList
	p.Operator("ca", "list", "--output", "json").Into(p.T, &list)
	return list
}

// behind says whether the node keeps the old authority from being retired.
func (n *node) behind() bool {
	n.t.Helper()
	return slices.ContainsFunc(n.p.authorities().Behind, func(b operatorapi.CABehind) bool { return b.NodeName == n.name })
}

// TestRotationAndRoll rolls the platform's CA while one node serves and another is off: the one follows by itself without a
// failed heartbeat, the other is led to the new CA when it comes back, and a second roll ends without force.
func TestRotationAndRoll(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"))
	off, late := p.node("off", "base"), p.node("late", "base")
	l := late.boot()
	l.report()
	l.exit()
	o := off.boot()
	o.report()
	before := o.credentials()
	o.exit()
	laptop := filepath.Join(tempDir(t), "operator.json")
	write(t, laptop, read(t, p.Config), 0o600)
	s := p.node("serving", "base").boot()
	s.serve()
	s.awaitSaid("acknowledged the first heartbeat")
	first := s.credentials()

	p.Operator("ca", "prepare").OK(t)
	s.await("it trusts the next CA", func() bool { return s.credentials().Bundle == p.authorities().BundleSHA256 })
	p.Operator("ca", "activate").OK(t)
	refused, behind := p.Operator("ca", "retire"), []string{"off", "late", "--force"}
	if s.behind() { // then it was behind before, too
		behind = append(behind, "serving")
	}
	refused.Refused(t, 1, behind...)
	s.await("it uses a certificate of the new CA", func() bool {
		now := s.credentials()
		return now.Serial != first.Serial && !now.Unused && s.certificate(now.Serial).State == operatorapi.CertificateInForce
	})
	if c := s.certificate(first.Serial); c.State != operatorapi.CertificateSuperseded {
		t.Errorf("the certificate before is %s", c.State)
	}
	if s.behind() || !off.behind() {
		t.Errorf("behind are %+v", p.authorities().Behind)
	}
	p.Operator("ca", "retire").Refused(t, 1, "off", "--force")
	p.Operator("ca", "retire", "--force").OK(t)
	shown := p.Operator("node", "show", "serving").OK(t)
	for _, want := range []string{"refresh", "in force", "superseded", "certificate.refreshed", "certificate.superseded"} {
		if !strings.Contains(shown, want) {
			t.Errorf("node show doesn't say %q:\n%s", want, shown)
		}
	}

	o = off.boot()
	o.serve()
	o.await("the node that was off uses a certificate of the new CA", func() bool {
		now := o.credentials()
		return now.Serial != before.Serial && o.certificate(now.Serial).State == operatorapi.CertificateInForce
	})
	if status := o.status(); !status.InStep || len(status.Remarks) != 0 {
		t.Errorf("after the roll: %+v\n%s", status, o.console())
	}
	if log := o.served(); strings.Contains(log, "level=WARN") && strings.Contains(log, "can't be kept up") {
		t.Errorf("the node that was off:\n%s", log)
	}

	// Nobody is off in the next one.
	p.Operator("ca", "prepare").OK(t)
	p.Operator("ca", "activate").OK(t)
	if log := s.served(); strings.Contains(log, "heartbeat failed") || strings.Contains(log, "can't be kept up") {
		t.Errorf("during the roll:\n%s", log)
	}
	for _, n := range []*system{o, s} {
		had := n.credentials().Serial
		for n.behind() {
			// A start is a heartbeat that needn't be waited for.
			n.serve()
			n.await("it has followed", func() bool {
				now := n.credentials()
				return now.Serial != had && now.Bundle == p.authorities().BundleSHA256 && !now.Unused
			})
			n.served()
		}
	}
	p.Operator("ca", "retire").OK(t)
	list := p.authorities()
	trusted := slices.DeleteFunc(list.Authorities, func(a operatorapi.Authority) bool { return a.State == operatorapi.AuthorityRetired })
	if len(trusted) != 1 || len(list.Behind) != 0 {
		t.Errorf("after two rolls: %+v", list)
	}

	// Who has only ever heard of the first one is led to the third.
	r := command(t, "", []string{"POWERNODE_CONFIG=" + laptop}, "powernode", "node", "list")
	r.OK(t)
	if !strings.Contains(r.Stderr, "the platform's CA has changed") || caOf(t, laptop) != caOf(t, p.Config) {
		t.Errorf("an operator who was away: %s", r.Stderr)
	}
	l = late.boot()
	for _, n := range []*system{o, s, l} {
		n.report()
		if status := n.status(); !status.InStep || len(status.Remarks) != 0 {
			t.Errorf("after both rolls: %+v\n%s", status, n.console())
		}
		n.exit()
	}
}

// caOf is the CA in an operator's credential file.
func caOf(t testing.TB, path string) string {
	t.Helper()
	return decode[operatorapi.Credentials](t, read(t, path)).CAPEM
}

// TestExpiredWhileOff lets certificates end while their nodes are off, under each policy.
func TestExpiredWhileOff(t *testing.T) {
	t.Parallel()
	// expired is a node whose certificate ended while it was off.
	expired := func(t *testing.T, policy ...string) (*node, credentialsSaid) {
		t.Helper()
		t.Parallel()
		p := newPlatform(t, append([]string{"--certificate-life", "90s"}, policy...)...)
		p.Publish(base("1"))
		n := p.node("web", "base")
		s := n.boot()
		s.report()
		had := s.credentials()
		s.exit()
		time.Sleep(time.Until(had.NotAfter.Add(time.Second)))
		return n, had
	}
	t.Run("the policy's days", func(t *testing.T) {
		n, had := expired(t)
		s := n.boot()
		now, status := s.credentials(), s.status()
		if now.Serial == had.Serial || now.Situation == "expired" || !status.InStep || len(status.Remarks) != 0 {
			t.Errorf("after the boot: %+v, %+v\n%s", now, status, s.console())
		}
		s.report()
		// On a slow machine the service has replaced the renewed one by now, which is good for 90 s.
		last := n.certificate(s.credentials().Serial)
		if c := n.certificate(now.Serial); c.Origin != "renew" || last.State != operatorapi.CertificateInForce {
			t.Errorf("the certificate: %+v, and then %+v", c, last)
		}
		s.exit()
	})
	t.Run("approval", func(t *testing.T) {
		n, had := expired(t, "--renew-expired", "approval")
		s := n.boot()
		if status := s.status(); status.Generation != 1 || !strings.Contains(fmt.Sprint(status.Remarks), "powernode node approve web") {
			t.Errorf("while it waits: %+v\n%s", status, s.console())
		}
		if !strings.Contains(s.console(), "powernode node approve web") {
			t.Errorf("the console doesn't say what it waits for:\n%s", s.console())
		}
		if now := s.credentials(); now.Serial != had.Serial || now.Situation != "expired" || !strings.Contains(now.Hint, "powernode node approve") {
			t.Errorf("while it waits: %+v", now)
		}
		s.serve()
		s.awaitSaid("powernode node approve web")
		s.served()
		if list := n.p.Operator("node", "list").OK(t); !strings.Contains(list, "renewal") {
			t.Errorf("the operator sees\n%s", list)
		}
		if d := n.detail(); len(d.Renewals) != 1 || d.Renewals[0].State != "waiting" || d.Renewals[0].Reason != "expired" {
			t.Errorf("boot and service ask by %+v", d.Renewals)
		}
		n.p.Operator("node", "approve", "web").OK(t)
		s.report()
		if now := s.credentials(); now.Serial == had.Serial || n.certificate(now.Serial).State != operatorapi.CertificateInForce {
			t.Errorf("approved: %+v, %+v", now, n.certificate(now.Serial))
		}
		s.exit()
	})
	t.Run("never", func(t *testing.T) {
		n, had := expired(t, "--renew-expired", "never")
		s := n.boot()
		if status := s.status(); status.Generation != 1 || len(status.Remarks) == 0 {
			t.Errorf("refused: %+v\n%s", status, s.console())
		}
		s.serve()
		s.awaitSaid("RENEWAL_REFUSED")
		s.served()
		if now := s.credentials(); now.Serial != had.Serial || now.Situation != "expired" || !strings.Contains(now.Hint, "powernode token create") {
			t.Errorf("refused: %+v", now)
		}
		if !n.happened("renewal.refused", "") {
			t.Errorf("the operator isn't told: %+v", n.detail().Events)
		}
		s.enrollsAnew()
		s.report()
		s.exit()
	})
}

// enrollsAnew gives the running node a new token, as a person would.
func (s *system) enrollsAnew() {
	s.t.Helper()
	s.token = s.p.Token(s.name)
	if e := s.write("/run/token", s.token.Token+"\n"); e != "" {
		s.t.Fatal(e)
	}
	s.agent("enroll", "--token-file", "/run/token").OK(s.t)
	s.do("remove", "", "/run/token")
}

// TestRevoked: a revoked node is refused from its next request on, goes on running, also after a reboot, doesn't renew, and comes back by
// a new token without a restart of its service.
func TestRevoked(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"))
	n := p.node("web", "base")
	s := n.boot()
	first := s.status()
	s.serve()
	s.awaitSaid("acknowledged the first heartbeat")
	revoked := s.credentials().Serial
	p.Operator("node", "revoke", "web").OK(t)
	last := n.detail().Node.Report.ReceivedAt
	s.awaitSaid("CERTIFICATE_REVOKED")
	if at := n.detail().Node.Report.ReceivedAt; !at.Equal(last) {
		t.Errorf("a heartbeat was taken after the revocation, at %s", at)
	}
	refused := func() {
		t.Helper()
		now, status := s.credentials(), s.status()
		if now.Serial != revoked || now.Situation != "revoked" || !strings.Contains(now.Reason, "revoked") || !strings.Contains(now.Hint, "powernode token create") {
			t.Errorf("revoked: %+v", now)
		}
		if status.RootDigest != first.RootDigest || status.Generation != 1 {
			t.Errorf("revoked: %+v", status)
		}
		if d := n.detail(); len(d.Renewals) != 0 || len(d.Certificates) != 1 || d.Certificates[0].State != operatorapi.CertificateRevoked {
			t.Errorf("the operator sees %+v, %+v", d.Renewals, d.Certificates)
		}
	}
	refused()
	s.served()
	s.exit()

	s = n.boot()
	refused()
	if remarks := fmt.Sprint(s.status().Remarks); !strings.Contains(remarks, "revoked") {
		t.Errorf("the boot remarks %s\n%s", remarks, s.console())
	}
	s.serve()
	s.awaitSaid("CERTIFICATE_REVOKED")
	s.enrollsAnew()
	s.await("the service is back", func() bool { return n.detail().Node.Report.ReceivedAt.After(last) })
	s.served()
	if now := s.credentials(); now.Serial == revoked || now.Situation != "valid" || n.certificate(now.Serial).State != operatorapi.CertificateInForce {
		t.Errorf("enrolled again: %+v", now)
	}
	s.exit()
}

// TestRevokedWhileOff: a node that was revoked while it was off, and given a new token, is enrolled in the boot that hears of it.
func TestRevokedWhileOff(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"))
	n := p.node("web", "base")
	s := n.boot()
	s.report()
	revoked := s.credentials().Serial
	s.exit()
	p.Operator("node", "revoke", "web").OK(t)
	n.newToken()
	s = n.boot()
	if now, status := s.credentials(), s.status(); now.Serial == revoked || now.Situation != "valid" || !status.InStep || len(status.Remarks) != 0 {
		t.Errorf("after the boot: %+v, %+v\n%s", now, status, s.console())
	}
	s.report()
	s.exit()
}

// TestClone runs two machines with one identity, as after the copy of a disk.
func TestClone(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"))
	n := p.node("web", "base")
	s := n.boot()
	s.report()
	s.exit()
	twin := p.blankNode(t, "web")
	if out, err := exec.Command("cp", "-a", n.persist+"/var", twin.persist).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	twin.token = n.token
	twin.identify(n.token.PlatformURL, n.token.CAPEM)
	original, copied := n.boot(), twin.boot()
	for s, id := range map[*system]string{original: "11111111-1111-4111-8111-111111111111", copied: "22222222-2222-4222-8222-222222222222"} {
		if a := s.do("cover", id+"\n", "/proc/sys/kernel/random/boot_id"); a.Error != "" {
			t.Fatal(a.Error)
		}
	}
	original.report()
	if node := copied.report(); len(node.Attention) != 0 {
		t.Errorf("a reboot calls for attention: %q", node.Attention)
	}
	node := original.report()
	if len(node.Attention) != 1 || !strings.Contains(node.Attention[0], "two machines use this identity") {
		t.Errorf("attention: %q", node.Attention)
	}
	if list := p.Operator("node", "list").OK(t); !strings.Contains(list, "identity") {
		t.Errorf("node list:\n%s", list)
	}
	if shown := p.Operator("node", "show", "web").OK(t); !strings.Contains(shown, "two machines use this identity") || !strings.Contains(shown, "identity.shared") {
		t.Errorf("node show:\n%s", shown)
	}
	for _, s := range []*system{original, copied} {
		if now := s.credentials(); now.Situation != "valid" || now.Reason != "" {
			t.Errorf("a doubt of the platform's is no refusal: %+v", now)
		}
	}

	// The one that is the node gets a new certificate, which ends the copy's.
	original.agent("enroll", "--renew").OK(t)
	original.report()
	copied.serve()
	copied.awaitSaid("powernode node approve web")
	copied.served()
	if now := copied.credentials(); now.Situation != "superseded" || !strings.Contains(now.Reason, "another machine has a copy") {
		t.Errorf("the copy: %+v", now)
	}
	if d := n.detail(); len(d.Renewals) != 1 || d.Renewals[0].State != "waiting" || d.Renewals[0].Reason != "superseded" {
		t.Errorf("the copy asks by %+v", d.Renewals)
	}
	p.Operator("node", "approve", "web", "--deny").OK(t)
	copied.serve()
	copied.awaitSaid("RENEWAL_REFUSED")
	copied.served()
	if node := original.report(); node.Status != operatorapi.NodeRunning {
		t.Errorf("the node is %s", node.Status)
	}
	p.Operator("node", "approve", "web").OK(t)
	if node := original.report(); len(node.Attention) != 0 {
		t.Errorf("after the approval: %q", node.Attention)
	}
	original.exit()
	copied.exit()
}
