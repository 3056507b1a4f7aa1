package platform_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

func bootReport(id string) nodeapi.BootReport {
	return nodeapi.BootReport{
		BootID: id, Number: 7, AgentVersion: "v1", Mode: "machine", BegunAt: time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC),
		StartedMillis: 900, EndedMillis: 4200, Outcome: nodeapi.BootHandedOver, Generation: 3, RootDigest: strings.Repeat("b", 64), IntegrityLevel: "enforced",
		Stages:  []nodeapi.BootStage{{Name: "identify", BegunMillis: 950, Millis: 12, Result: "node web-1"}, {Name: "fetch", BegunMillis: 970, Millis: 300, Error: "no answer"}},
		Remarks: []string{"staying with generation 3"},
		Trial:   &nodeapi.BootTrial{Generation: 3, Attempts: 1, Limit: 3, Verdict: nodeapi.TrialUnderWay},
	}
}

// TestBootReports: the platform keeps what a boot says of itself, once however often it is said,
// and the last sixteen of a node.
func TestBootReports(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	node, other := p.Enroll("web-1", "amd64"), p.Enroll("web-2", "amd64")
	post := func(n *platformtest.Node, r nodeapi.BootReport) {
		t.Helper()
		var answer nodeapi.BootReportResponse
		p.Do(n, http.MethodPost, nodeapi.PathBootReports, r).Into(&answer)
		if !answer.Acknowledged {
			t.Fatal("not acknowledged")
		}
	}
	first := bootReport("boot-00")
	post(node, first)
	first.Trial.Verdict, first.Trial.Reason = nodeapi.TrialFailed, "nginx.service failed"
	post(node, first)
	post(node, first)
	shown, err := p.Operator.Node(ctx, "web-1")
	if err != nil || len(shown.Boots) != 1 {
		t.Fatalf("%+v, %v", shown.Boots, err)
	}
	want := operatorapi.Boot{
		BootID: "boot-00", Number: 7, ReceivedAt: shown.Boots[0].ReceivedAt, BegunAt: first.BegunAt, AgentVersion: "v1", Mode: "machine",
		StartedMillis: 900, EndedMillis: 4200, Outcome: "handed over", Generation: 3, RootDigest: first.RootDigest, IntegrityLevel: "enforced",
		Stages:  []operatorapi.BootStage{{Name: "identify", BegunMillis: 950, Millis: 12, Result: "node web-1"}, {Name: "fetch", BegunMillis: 970, Millis: 300, Error: "no answer"}},
		Remarks: []string{"staying with generation 3"},
		Trial:   &operatorapi.BootTrial{Generation: 3, Attempts: 1, Limit: 3, Verdict: "failed", Reason: "nginx.service failed"},
	}
	if diff := cmp.Diff(want, shown.Boots[0]); diff != "" || shown.Boots[0].ReceivedAt.IsZero() {
		t.Error(diff)
	}
	// What went wrong is an event, once.
	troubles := 0
	for _, e := range shown.Events {
		if e.Kind == "node.boot_trouble" {
			troubles++
			if e.Text != "generation 3 failed its trial: nginx.service failed" {
				t.Errorf("event %q", e.Text)
			}
		}
	}
	if troubles != 1 {
		t.Errorf("%d events", troubles)
	}

	post(other, bootReport("boot-00"))
	for i := range 20 {
		post(node, bootReport(fmt.Sprintf("boot-%02d", i)))
	}
	shown, err = p.Operator.Node(ctx, "web-1")
	if err != nil || len(shown.Boots) != 16 || shown.Boots[0].BootID != "boot-19" || shown.Boots[15].BootID != "boot-04" {
		t.Errorf("%d boots, %+v, %v", len(shown.Boots), shown.Boots, err)
	}
	if shown, err = p.Operator.Node(ctx, "web-2"); err != nil || len(shown.Boots) != 1 {
		t.Errorf("of the other node: %d, %v", len(shown.Boots), err)
	}
}

// TestBootReportsRefused: what no agent would say is refused, and what an agent clips is not.
func TestBootReportsRefused(t *testing.T) {
	p := platformtest.Start(t)
	node := p.Enroll("web-1", "amd64")
	long := strings.Repeat("x", 2000)
	for name, change := range map[string]func(*nodeapi.BootReport){
		"no boot ID":           func(r *nodeapi.BootReport) { r.BootID = "" },
		"a long boot ID":       func(r *nodeapi.BootReport) { r.BootID = long },
		"no agent":             func(r *nodeapi.BootReport) { r.AgentVersion = "" },
		"an outcome":           func(r *nodeapi.BootReport) { r.Outcome = "splendid" },
		"a root digest":        func(r *nodeapi.BootReport) { r.RootDigest = "x" },
		"a negative time":      func(r *nodeapi.BootReport) { r.EndedMillis = -1 },
		"a large generation":   func(r *nodeapi.BootReport) { r.Generation = 1 << 63 },
		"a long failure":       func(r *nodeapi.BootReport) { r.Failure = long },
		"an escape sequence":   func(r *nodeapi.BootReport) { r.Remarks = []string{"\x1b[2J"} },
		"a line in a line":     func(r *nodeapi.BootReport) { r.Stages[0].Result = "a\nb" },
		"a stage without name": func(r *nodeapi.BootReport) { r.Stages[0].Name = "" },
		"a stage back in time": func(r *nodeapi.BootReport) { r.Stages[0].Millis = -5 },
		"many stages":          func(r *nodeapi.BootReport) { r.Stages = make([]nodeapi.BootStage, 65) },
		"many remarks":         func(r *nodeapi.BootReport) { r.Remarks = make([]string, 33) },
		"a verdict":            func(r *nodeapi.BootReport) { r.Trial.Verdict = "splendid" },
		"a long reason": func(r *nodeapi.BootReport) {
			r.Fallback = &nodeapi.BootTrial{Verdict: nodeapi.TrialFailed, Reason: long}
		},
		"negative attempts": func(r *nodeapi.BootReport) { r.Trial.Attempts = -1 },
	} {
		r := bootReport("boot")
		change(&r)
		a := p.Do(node, http.MethodPost, nodeapi.PathBootReports, r)
		if a.Status != http.StatusUnprocessableEntity && a.Status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	large := strings.NewReader(`{"boot_id":"` + strings.Repeat("x", nodeapi.MaxBootReport) + `"}`)
	if a := p.Do(node, http.MethodPost, nodeapi.PathBootReports, large); a.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("too large: %d %s", a.Status, a.Body)
	}
	if shown, err := p.Operator.Node(t.Context(), "web-1"); err != nil || len(shown.Boots) != 0 {
		t.Errorf("kept %+v, %v", shown.Boots, err)
	}

	// The largest report that an agent has is within the bounds once it is clipped.
	r := bootReport("boot")
	r.Failure, r.Stage = strings.Repeat("é\x1b\n", 2000), long
	r.Stages = make([]nodeapi.BootStage, 500)
	for i := range r.Stages {
		r.Stages[i] = nodeapi.BootStage{Name: long, Result: strings.Repeat("<", 2000), Error: strings.Repeat("&", 2000), Millis: -1}
	}
	for range 100 {
		r.Remarks = append(r.Remarks, long)
	}
	r.Trial.Reason = strings.Repeat("\xff", 3000)
	r = nodeclient.ClipBootReport(r)
	if data, err := json.Marshal(r); err != nil || len(data) > nodeapi.MaxBootReport {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if a := p.Do(node, http.MethodPost, nodeapi.PathBootReports, r); a.Status != http.StatusOK {
		t.Errorf("clipped: %d %s", a.Status, a.Body)
	}
}
