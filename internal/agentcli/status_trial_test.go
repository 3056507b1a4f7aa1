package agentcli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/health"
	"github.com/powernode/powernode-agent/internal/store"
)

// TestStatusOfTrials: a node that runs generation 2 well, had 3 fail, and tries 4.
func TestStatusOfTrials(t *testing.T) {
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	at := time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)
	image := []byte("root")
	for range 4 {
		if _, err = st.PutGeneration(store.Generation{RootDigest: fsverity.SumBytes(image)}, bytes.NewReader(image)); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		st.Pass(2, at, nil), st.Stage(3),
		st.PutTrial(store.Trial{Generation: 3, Attempts: 1, Limit: 3, Failed: "failed: nginx.service", FailedAt: at}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	facts := boot.Facts{Generation: 2}
	runDir := t.TempDir()

	var fellBack statusDoc
	fellBack.trials(st, facts, runDir)
	if fellBack.Trial != nil || fellBack.LastFailed == nil || fellBack.LastFailed.Generation != 3 || !fellBack.LastFailed.At.Equal(at) {
		t.Errorf("%+v, %+v", fellBack.Trial, fellBack.LastFailed)
	}
	if len(fellBack.Reasons) != 1 || fellBack.Reasons[0] != "generation 3 was staged, and isn't tried any more: failed: nginx.service" {
		t.Errorf("%q", fellBack.Reasons)
	}

	if err := st.Stage(4); err != nil {
		t.Fatal(err)
	}
	facts.Generation, facts.Health = 4, health.Settings{Trial: true, Attempt: 2, Attempts: 3}
	for _, c := range []struct {
		report *health.Report
		want   []string // in the table
	}{
		{nil, []string{"attempt 2 of 3 with generation 4: waiting", "hasn't begun to judge", "generation 3: failed: nginx.service"}},
		{&health.Report{Generation: 4, Verdict: health.Verdict{Outcome: health.Bad, Reasons: []string{"failed: a.service"}}}, []string{"generation 4: bad", "failed: a.service", "was found bad"}},
	} {
		if c.report != nil {
			if err := health.WriteReport(runDir, *c.report); err != nil {
				t.Fatal(err)
			}
		}
		var doc statusDoc
		doc.trials(st, facts, runDir)
		if len(doc.Reasons) != 1 {
			t.Errorf("%q", doc.Reasons)
		}
		var out bytes.Buffer
		if err := doc.table(&out); err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is missing in\n%s", want, out.String())
			}
		}
	}
	if err := st.Pass(4, at, nil); err != nil {
		t.Fatal(err)
	}
	// It went live as 5 before it was booted: current, and on trial all the same, and then given up.
	at5, err := st.PutGeneration(store.Generation{RootDigest: fsverity.SumBytes(image)}, bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	attempt := store.Trial{Generation: at5, Attempts: 1, Limit: 2}
	for _, err := range []error{st.PutLive(store.Live{Generation: at5, From: 4, At: at}), st.Promote(at5), st.PutTrial(attempt)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	facts.Generation = at5
	var live statusDoc
	if live.trials(st, facts, runDir); live.Trial == nil || live.LastFailed != nil && live.LastFailed.Generation == at5 {
		t.Errorf("it went live: %+v, %+v", live.Trial, live.LastFailed)
	}
	attempt.Attempts = 2
	if err := st.PutTrial(attempt); err != nil {
		t.Fatal(err)
	}
	facts.Generation = 4
	var gaveUp statusDoc
	if gaveUp.trials(st, facts, runDir); gaveUp.LastFailed == nil || gaveUp.LastFailed.Generation != at5 {
		t.Errorf("it doesn't boot: %+v", gaveUp.LastFailed)
	}
	if err := st.Pass(4, at, nil); err != nil {
		t.Fatal(err)
	}
	var good statusDoc
	if good.trials(st, facts, runDir); good.Trial != nil || len(good.Reasons) != 0 {
		t.Errorf("it is good: %+v, %q", good.Trial, good.Reasons)
	}
}
