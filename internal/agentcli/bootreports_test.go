package agentcli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/health"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/trial"
)

// journals writes journals of boots as boots leave them.
func journals(t *testing.T, dir string, list ...boot.Journal) {
	t.Helper()
	at := filepath.Join(dir, "boots")
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, j := range list {
		data, err := json.Marshal(j)
		if err == nil {
			err = os.WriteFile(filepath.Join(at, string(rune('0'+j.Number))+".json"), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func idsOf(reports []nodeapi.BootReport) string {
	ids := ""
	for _, r := range reports {
		ids += r.BootID + " "
	}
	return ids
}

// TestBootReportsAreTold once each, oldest first, and again when more is known.
func TestBootReportsAreTold(t *testing.T) {
	dir := t.TempDir()
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for range 2 {
		image := []byte("root")
		if _, err := st.PutGeneration(store.Generation{RootDigest: fsverity.SumBytes(image)}, bytes.NewReader(image)); err != nil {
			t.Fatal(err)
		}
	}
	stages := []boot.StageRecord{{Name: "fetch", Begun: 900, Millis: 20, Error: "no answer"}}
	journals(t, dir,
		boot.Journal{Number: 1, BootID: "one", Outcome: boot.UnderWay, Agent: "v1", Mode: boot.Machine, Generation: 2},
		boot.Journal{Number: 2, BootID: "two", Outcome: boot.InRecovery, Agent: "v1", Stage: "fetch", Failure: "no answer", Stages: stages},
		boot.Journal{Number: 3, BootID: "three", Outcome: boot.UnderWay, Agent: "v1", Generation: 1, Stages: stages})
	if err := st.PutTrial(store.Trial{Generation: 2, Attempts: 1, Limit: 3, BootID: "one", Failed: "app.service failed", FailedAt: time.Unix(5, 0)}); err != nil {
		t.Fatal(err)
	}
	facts := boot.Facts{Generation: 1, RootDigest: fsverity.SumBytes([]byte("root")), Level: "enforced", Remarks: []string{"a remark"}}
	facts.Journal = boot.Journal{Number: 3, BootID: "three", Outcome: boot.HandedOver, EndedMillis: 4000, Generation: 1}
	b := &bootReports{stateDir: dir, facts: facts}

	pending, err := b.Pending()
	if err != nil || idsOf(pending) != "one two three " {
		t.Fatalf("pending %q, %v", idsOf(pending), err)
	}
	one, two, three := pending[0], pending[1], pending[2]
	if one.Trial == nil || one.Trial.Verdict != nodeapi.TrialFailed || one.Trial.Reason != "app.service failed" || one.Outcome != nodeapi.BootUnderWay || one.Mode != "machine" {
		t.Errorf("one: %+v, %+v", one, one.Trial)
	}
	if two.Outcome != nodeapi.BootInRecovery || two.Stage != "fetch" || two.Failure != "no answer" || len(two.Stages) != 1 || two.Stages[0].BegunMillis != 900 || two.Trial != nil {
		t.Errorf("two: %+v", two)
	}
	if three.Outcome != nodeapi.BootHandedOver || three.EndedMillis != 4000 || three.Generation != 1 || three.IntegrityLevel != "enforced" || len(three.Remarks) != 1 ||
		three.Fallback == nil || three.Fallback.Generation != 2 || three.Trial != nil {
		t.Errorf("three: %+v, %+v", three, three.Fallback)
	}

	for _, r := range pending[:2] {
		if err := b.Acknowledged(r); err != nil {
			t.Fatal(err)
		}
	}
	if pending, err := b.Pending(); err != nil || idsOf(pending) != "three " {
		t.Errorf("pending %q, %v", idsOf(pending), err)
	}
	// Another process knows too.
	again := &bootReports{stateDir: dir, facts: facts}
	if pending, err := again.Pending(); err != nil || idsOf(pending) != "three " {
		t.Errorf("after a restart: %q, %v", idsOf(pending), err)
	}
	if err := st.PutTrial(store.Trial{Generation: 2, Attempts: 2, Limit: 3, BootID: "one", Failed: "web.service failed", FailedAt: time.Unix(5, 0)}); err != nil {
		t.Fatal(err)
	}
	if pending, err := again.Pending(); err != nil || idsOf(pending) != "one three " {
		t.Errorf("after news: %q, %v", idsOf(pending), err)
	}
}

// TestNoWordOnASoftRebootThatBegins: the last attempt at what comes next was counted, and nothing failed. What the boot itself gave up did.
func TestNoWordOnASoftRebootThatBegins(t *testing.T) {
	now := boot.Journal{BootID: "this", Outcome: boot.HandedOver}
	facts := boot.Facts{Generation: 4, Journal: now, Health: health.Settings{HandedOverSeconds: int64(health.Uptime()/time.Second) - 60}}
	if facts.Health.HandedOverSeconds <= 0 {
		t.Skip("this machine is up for less than a minute")
	}
	b := &bootReports{stateDir: t.TempDir(), facts: facts}
	for _, c := range []struct {
		what   string
		trial  store.Trial
		failed bool
	}{
		{"about to be left for it", store.Trial{BootID: "this", Begun: time.Now()}, false},
		{"given up by the boot", store.Trial{BootID: "this", Begun: time.Now().Add(-2 * time.Minute)}, true},
		{"condemned", store.Trial{BootID: "this", Begun: time.Now(), Failed: "it has no init"}, true},
		{"of another boot", store.Trial{BootID: "other", Begun: time.Now()}, true},
	} {
		c.trial.Generation, c.trial.Attempts, c.trial.Limit = 5, 1, 1
		r := b.report(now, trial.Input{Trials: []store.Trial{c.trial}})
		if (r.Fallback != nil) != c.failed || r.Trial != nil {
			t.Errorf("%s: %+v, %+v", c.what, r.Fallback, r.Trial)
		}
	}
}

// TestBootReportsWithoutADisk: what is known of the running boot is told all the same.
func TestBootReportsWithoutADisk(t *testing.T) {
	facts := boot.Facts{Generation: 1, Journal: boot.Journal{BootID: "three", Outcome: boot.HandedOver}}
	b := &bootReports{stateDir: filepath.Join(t.TempDir(), "none"), facts: facts}
	pending, err := b.Pending()
	if err != nil || idsOf(pending) != "three " {
		t.Fatalf("pending %q, %v", idsOf(pending), err)
	}
	if err := b.Acknowledged(pending[0]); err != nil {
		t.Error(err)
	}
	if pending, err = b.Pending(); err != nil || len(pending) != 0 {
		t.Errorf("pending %q, %v", idsOf(pending), err)
	}
}
