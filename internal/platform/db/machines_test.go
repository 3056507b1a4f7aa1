package db

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

func TestSuspect(t *testing.T) {
	first := nodeapi.Machine{DMIUUID: "dmi-a", VMGenerationID: "vm-a"}
	for name, tc := range map[string]struct {
		known   machine
		boot    string
		machine nodeapi.Machine
		want    []AttentionKind
	}{
		"the first heartbeat":        {machine{}, "a", first, nil},
		"the same boot":              {machine{boot: "a", first: first}, "a", first, nil},
		"the next boot":              {machine{boot: "a", first: first}, "b", first, nil},
		"a boot after many":          {machine{boot: "c", earlier: []string{"b", "a"}}, "d", first, nil},
		"the boot before":            {machine{boot: "b", earlier: []string{"a"}}, "a", first, []AttentionKind{AttentionBoot}},
		"a boot long before":         {machine{boot: "d", earlier: []string{"c", "b", "a"}}, "a", first, []AttentionKind{AttentionBoot}},
		"its own boot, listed twice": {machine{boot: "a", earlier: []string{"a"}}, "a", first, nil},
		"another DMI UUID":           {machine{boot: "a", first: first}, "a", nodeapi.Machine{DMIUUID: "dmi-b", VMGenerationID: "vm-a"}, []AttentionKind{AttentionDMI}},
		"in another case":            {machine{boot: "a", first: first}, "a", nodeapi.Machine{DMIUUID: "DMI-A", VMGenerationID: "VM-A"}, nil},
		"a boot that can't be read":  {machine{boot: "b", earlier: []string{"unknown", "", "a"}}, "unknown", first, nil},
		"nor said":                   {machine{boot: "b", earlier: []string{"unknown", "", "a"}}, "", first, nil},
		"no DMI UUID now":            {machine{boot: "a", first: first}, "a", nodeapi.Machine{}, nil},
		"none said before":           {machine{boot: "a"}, "a", first, nil},
		"a snapshot restored":        {machine{boot: "a", first: first}, "a", nodeapi.Machine{DMIUUID: "dmi-a", VMGenerationID: "vm-b"}, []AttentionKind{AttentionVM}},
		"a clone at its boot": {
			machine{boot: "b", earlier: []string{"a"}, first: first},
			"a",
			nodeapi.Machine{DMIUUID: "dmi-b", VMGenerationID: "vm-b"},
			[]AttentionKind{AttentionBoot, AttentionDMI, AttentionVM},
		},
	} {
		var got []AttentionKind
		for _, a := range suspect(tc.known, "192.0.2.1", nodeapi.Heartbeat{BootID: tc.boot, Machine: tc.machine}) {
			got = append(got, a.kind)
			if !strings.Contains(a.text, "192.0.2.1") {
				t.Errorf("%s: %q doesn't say from where", name, a.text)
			}
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// enrolled makes a node and enrolls it.
func enrolled(t *testing.T, d *DB, c *clock, name string) (Node, Certificate) {
	t.Helper()
	n := first(d.CreateNode(t.Context(), name, "amd64"))
	first(d.CreateToken(t.Context(), n.ID, "token of "+name, time.Hour))
	issued := 0
	cert := first(d.Enroll(t.Context(), Enrollment{
		Token: "token of " + name, KeyHash: sha256.Sum256([]byte(name)), From: "192.0.2.1", Issue: issuer(c, 90*24*time.Hour, &issued),
	}))
	return n, cert
}

// TestTwoMachines: what two machines with one identity say is seen once, however often they say it, until
// it is cleared, and then again.
func TestTwoMachines(t *testing.T) {
	d, c := newDB(t)
	ctx := t.Context()
	node, cert := enrolled(t, d, c, "web-1")
	beat := func(boot, dmi string) {
		t.Helper()
		check(t, d.Heartbeat(ctx, Sender{node.ID, cert.ID, "192.0.2.7"}, nodeapi.Heartbeat{
			BootID: boot, AgentVersion: "1", Architecture: "amd64", MountState: nodeapi.MountMounted, Machine: nodeapi.Machine{DMIUUID: dmi},
		}))
	}
	kinds := func() (list []AttentionKind) {
		for kind := range first(d.Attention(ctx, node.ID))[node.ID] {
			list = append(list, kind)
		}
		slices.Sort(list)
		return list
	}
	events := func(kind string) (n int) {
		for _, e := range first(d.Events(ctx, node.ID, keepEvents)) {
			if e.Kind == kind {
				n++
			}
		}
		return n
	}
	// A boot ID that couldn't be read once, or that was kept as one, says nothing of another machine.
	beat("zero", "dmi")
	beat("unknown", "dmi")
	beat("", "dmi")
	beat("zero", "dmi")
	if got, booted := kinds(), events(EventBooted); got != nil || booted != 0 {
		t.Fatalf("a boot ID that can't be read: %v, %d boots", got, booted)
	}
	check(t, d.update(ctx, func(tx *txn) error {
		_, err := tx.Exec(ctx, "INSERT INTO boot_ids (node_id, boot_id, seen_at) VALUES (?, 'unknown', 1)", node.ID)
		return err
	}))
	beat("zero", "dmi")
	beat("unknown", "dmi")
	if got := kinds(); got != nil {
		t.Fatalf("one that was kept: %v", got)
	}
	for i := range 3 * keptBootIDs {
		beat(fmt.Sprint("boot-", i), "dmi")
	}
	if got := kinds(); got != nil {
		t.Fatalf("one machine: %v", got)
	}
	booted := events(EventBooted)
	for range 20 {
		beat("a", "dmi")
		beat("b", "dmi")
	}
	if diff := cmp.Diff([]AttentionKind{AttentionBoot}, kinds()); diff != "" || events(EventShared) != 1 || events(EventBooted) > booted+2 {
		t.Errorf("%s: %d events, %d boots", diff, events(EventShared), events(EventBooted)-booted)
	}
	beat("b", "another")
	if diff := cmp.Diff([]AttentionKind{AttentionBoot, AttentionDMI}, kinds()); diff != "" || events(EventShared) != 2 {
		t.Error(diff)
	}
	if _, err := d.Decide(ctx, Decision{NodeID: node.ID, Deny: true}); err == nil {
		t.Error("a doubt was denied")
	}
	done := first(d.Decide(ctx, Decision{NodeID: node.ID}))
	if len(done.Cleared) != 2 || kinds() != nil || events(EventCleared) != 1 {
		t.Errorf("%+v", done)
	}
	// The machine that reported last is the node; the other one is seen again.
	beat("b", "another")
	if got := kinds(); got != nil {
		t.Errorf("after it was cleared: %v", got)
	}
	beat("a", "dmi")
	beat("b", "another")
	if len(kinds()) != 2 {
		t.Errorf("both again: %v", kinds())
	}
	first(d.CreateToken(ctx, node.ID, "second", time.Hour))
	issued := 100
	first(d.Enroll(ctx, Enrollment{Token: "second", KeyHash: [32]byte{9}, Issue: issuer(c, time.Hour, &issued)}))
	if got := kinds(); got != nil {
		t.Errorf("after a new enrollment: %v", got)
	}
	var rows int
	check(t, d.read.QueryRow(ctx, "SELECT count(*) FROM boot_ids").Scan(&rows))
	if rows > keptBootIDs {
		t.Errorf("%d boot IDs are kept", rows)
	}
}
