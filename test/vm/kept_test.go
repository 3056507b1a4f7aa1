package vm

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/test/lab"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// hostKey has the form of an SSH host key.
const hostKey = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB\n-----END OPENSSH PRIVATE KEY-----\n"

// withSSH is the base with a directory for host keys.
func withSSH(t testing.TB) lab.Module {
	m := base(t, "1")
	m.Files["etc/ssh/ssh_config"] = "# of the image\n"
	return m
}

// upperOf is what status says of the writable layer.
func upperOf(s *system) (upper struct {
	UsedBytes  uint64 `json:"used_bytes"`
	TotalBytes uint64 `json:"total_bytes"`
	Fullness   string `json:"fullness"`
	Warning    string `json:"warning"`
},
) {
	s.n.t.Helper()
	var doc struct{ Upper json.RawMessage }
	if err := json.Unmarshal([]byte(s.agent("status", "--output", "json").Stdout), &doc); err != nil {
		s.n.t.Fatal(err)
	}
	if err := json.Unmarshal(doc.Upper, &upper); err != nil {
		s.n.t.Fatal(err)
	}
	return upper
}

// TestKept: what a node is recognised by outlives its boots and its roots; the rest of /etc does where
// that is wanted; and a writable layer that fills up is told of before writes fail.
func TestKept(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(withSSH(t))
	p.Publish(app("1"))
	n := p.node("kept", "base", "app")
	n.machine.Append = "powernode.upper_size=4m"
	const machineID, key, local = "/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key", "/etc/local"

	s := n.boot()
	id := s.Read(machineID)
	if len(id) != 33 {
		t.Errorf("machine ID %q", id)
	}
	if freed := s.journal().Freed; freed.Files == 0 || freed.Bytes < 10<<20 {
		t.Errorf("freed of the initramfs: %+v", freed)
	}
	for path, text := range map[string]string{key: hostKey, local: "x", "/etc/hostname": "kept-1\n"} {
		if got := s.Write(path, text); got != "" {
			t.Fatal(got)
		}
	}
	if upper := upperOf(s); upper.TotalBytes != 4<<20 || upper.Fullness != "ok" || upper.Warning != "" {
		t.Errorf("the writable layer: %+v", upper)
	}
	if got := s.Write("/etc/large", strings.Repeat("x", 3600<<10)); got != "" {
		t.Fatal(got)
	}
	if upper := upperOf(s); upper.Fullness != "filling" || !strings.Contains(upper.Warning, "upper_size") {
		t.Errorf("the writable layer: %+v", upper)
	}
	if r := s.agent("status"); !strings.Contains(r.Stdout, "warning") || !strings.Contains(r.Stdout, "% full;") {
		t.Errorf("status:\n%s", r.Stdout)
	}
	s.service("the platform knows that the writable layer fills up", func() bool {
		report := n.detail().Node.Report
		return report != nil && slices.ContainsFunc(report.Remarks, func(r string) bool { return strings.Contains(r, "writable layer") })
	})
	s.good()

	// Another root, from the same disk.
	p.Publish(app("2"))
	s.Reboot()
	s.WaitInit()
	same := func(generation uint64, version string) {
		t.Helper()
		s.runs(generation, version)
		if got := s.Read(machineID); got != id {
			t.Errorf("machine ID %q, not %q", got, id)
		}
		if got := s.Read(key); got != hostKey {
			t.Errorf("the host key is %q", got)
		}
		if got := s.Read("/etc/hostname"); got != "kept-1\n" {
			t.Errorf("the host name is %q", got)
		}
	}
	same(2, "2")
	if s.ReadError(local) == "" {
		t.Error("a change to an ephemeral /etc is still there")
	}
	if upper := upperOf(s); upper.Fullness != "ok" {
		t.Errorf("the writable layer of another boot: %+v", upper)
	}
	s.good()
	s.PowerOff()

	n.machine.Initramfs, n.machine.Append = agentInitramfs(t, p, "integrity: enforced\n", "schema_version: 1\netc: persistent\n"), ""
	s = n.boot()
	same(2, "2")
	if got := s.Write(local, "changed here\n"); got != "" {
		t.Fatal(got)
	}
	p.Publish(app("3"))
	s.Reboot()
	s.WaitInit()
	same(3, "3")
	if got := s.Read(local); got != "changed here\n" {
		t.Errorf("a change to a persistent /etc: %q", got)
	}
	s.good()
	s.PowerOff()
	qemu.Check(t, n.disk)
}
