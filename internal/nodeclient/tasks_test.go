package nodeclient

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

const leased = `{"id":"t-1","lease_id":"00112233445566778899aabbccddeeff","kind":"sync","options":{},"attempt":1,"created_at":"2026-11-23T12:00:00Z","lease_seconds":60,"deadline_seconds":3600,"requested_by":"ops"}`

func TestLeaseTasks(t *testing.T) {
	for name, c := range map[string]struct {
		data string
		want string // in the error
	}{
		"one":               {`{"tasks":[` + leased + `]}`, ""},
		"none":              {`{"tasks":[]}`, ""},
		"no list":           {`{}`, "no list of tasks"},
		"null":              {`{"tasks":null}`, "no list of tasks"},
		"too many":          {`{"tasks":[` + strings.Repeat(leased+",", 3) + leased + `]}`, "more than 3"},
		"twice":             {`{"tasks":[` + leased + "," + leased + `]}`, "isn't the ID of one"},
		"a path":            {`{"tasks":[` + strings.Replace(leased, "t-1", "../x", 1) + `]}`, "isn't the ID of one"},
		"no lease":          {`{"tasks":[` + strings.Replace(leased, "00112233445566778899aabbccddeeff", "", 1) + `]}`, "isn't a lease"},
		"no kind":           {`{"tasks":[` + strings.Replace(leased, "sync", "", 1) + `]}`, "isn't a kind"},
		"no attempt":        {`{"tasks":[` + strings.Replace(leased, `"attempt":1`, `"attempt":0`, 1) + `]}`, "attempt 0"},
		"no time":           {`{"tasks":[` + strings.Replace(leased, `"lease_seconds":60`, `"lease_seconds":-1`, 1) + `]}`, "can't be"},
		"too long options":  {`{"tasks":[` + strings.Replace(leased, `{}`, `{"x":"`+strings.Repeat("x", nodeapi.MaxTaskOptions)+`"}`, 1) + `]}`, "options of more than"},
		"of another shape":  {`{"tasks":[1]}`, "isn't as agreed"},
		"options of a list": {`{"tasks":[` + strings.Replace(leased, `{}`, `[]`, 1) + `]}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, success(c.data)) })
			got, err := n.client.LeaseTasks(t.Context(), nodeapi.LeaseRequest{Max: 3})
			switch {
			case c.want == "" && (err != nil || got == nil || got.Tasks == nil):
				t.Errorf("%+v, %v", got, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != fault.Broken):
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// TestTaskCalls: each call goes to its path with what it is given, and its error says what the platform said.
func TestTaskCalls(t *testing.T) {
	var path, body string
	status := 0
	n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		path, body = strings.TrimPrefix(r.URL.Path, nodeapi.PathTasks), string(data)
		if status != 0 {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"success":false,"error":"lost","code":"LEASE_LOST"}`)
			return
		}
		_, _ = io.WriteString(w, success(`{"lease_seconds":60,"cancel":true,"state":"complete","accepted":1}`))
	})
	ctx, c := t.Context(), n.client
	long := strings.Repeat("é", nodeapi.MaxTaskMessage)
	for name, call := range map[string]struct {
		do         func() error
		path, body string
	}{
		"renew": {func() error {
			got, err := c.RenewTask(ctx, "t", nodeapi.RenewTask{LeaseID: "L"})
			if err == nil && (!got.Cancel || got.LeaseSeconds != 60) {
				t.Errorf("%+v", got)
			}
			return err
		}, "/t/renew", `{"lease_id":"L"}`},
		"progress": {func() error {
			_, err := c.TaskProgress(ctx, "t", nodeapi.TaskProgress{LeaseID: "L", Percent: 101, Message: long, Output: "o", OutputOffset: 3})
			return err
		}, "/t/progress", `{"lease_id":"L","percent":100,"message":"` + long[:nodeapi.MaxTaskMessage] + `","output":"o","output_offset":3}`},
		"complete": {func() error {
			got, err := c.CompleteTask(ctx, "t", nodeapi.CompleteTask{LeaseID: "L", Result: json.RawMessage(`{"a":1}`)})
			if err == nil && got.State != nodeapi.TaskComplete {
				t.Errorf("%+v", got)
			}
			return err
		}, "/t/complete", `{"lease_id":"L","result":{"a":1}}`},
		"fail": {func() error {
			_, err := c.FailTask(ctx, "t", nodeapi.FailTask{LeaseID: "L", Code: nodeapi.FailTimeout})
			return err
		}, "/t/fail", `{"lease_id":"L","error":"TIMEOUT","code":"TIMEOUT"}`},
	} {
		status = 0
		if err := call.do(); err != nil || path != call.path || body != call.body {
			t.Errorf("%s: %v: %s %s", name, err, path, body)
		}
		status = http.StatusConflict
		if err := call.do(); nodehttp.StatusOf(err) != status || nodehttp.CodeOf(err) != nodeapi.CodeLeaseLost {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.RenewTask(ctx, "../x", nodeapi.RenewTask{}); err == nil || fault.KindOf(err) != fault.Refuse {
		t.Error(err)
	}
}

// TestTaskAnswers: an answer that doesn't say what the call is for is none, so that nothing is forgotten for it.
func TestTaskAnswers(t *testing.T) {
	answer := ""
	n := newNode(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, success(answer)) })
	standing := map[string]func() error{
		"renew": func() error {
			_, err := n.client.RenewTask(t.Context(), "t", nodeapi.RenewTask{LeaseID: "L"})
			return err
		},
		"progress": func() error {
			_, err := n.client.TaskProgress(t.Context(), "t", nodeapi.TaskProgress{LeaseID: "L"})
			return err
		},
	}
	end := map[string]func() error{
		"complete": func() error {
			_, err := n.client.CompleteTask(t.Context(), "t", nodeapi.CompleteTask{LeaseID: "L"})
			return err
		},
		"fail": func() error {
			_, err := n.client.FailTask(t.Context(), "t", nodeapi.FailTask{LeaseID: "L", Code: nodeapi.FailTimeout})
			return err
		},
	}
	for _, c := range []struct {
		calls  map[string]func() error
		answer string
		want   string // in the error
	}{
		{standing, `{"lease_seconds":1,"cancel":false}`, ""},
		{standing, `{}`, "a lease of 0 s"},
		{standing, `{"lease_seconds":-60}`, "a lease of -60 s"},
		{standing, `{"state":"complete"}`, "a lease of 0 s"},
		{end, `{"state":"complete"}`, ""},
		{end, `{"state":"failed"}`, ""},
		{end, `{"state":"cancelled"}`, ""},
		{end, `{}`, "isn't the state of a task that has ended"},
		{end, `{"state":"leased"}`, `"leased" isn't the state`},
		{end, `{"lease_seconds":60}`, "isn't the state of a task that has ended"},
	} {
		for name, call := range c.calls {
			answer = c.answer
			err := call()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != fault.Broken) {
				t.Errorf("%s, %s: %v", name, c.answer, err)
			}
		}
	}
}

func TestEvents(t *testing.T) {
	var got nodeapi.EventsRequest
	accepted := "1"
	n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewDecoder(r.Body).Decode(&got)
		_, _ = io.WriteString(w, success(`{"accepted":`+accepted+`}`))
	})
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	e := nodeapi.Event{ID: "i", At: at, Kind: "k", Severity: nodeapi.SeverityError, Fields: map[string]string{"a": "b\x00c", "": "x"}}
	if err := n.client.Events(t.Context(), []nodeapi.Event{e}); err != nil {
		t.Fatal(err)
	}
	want := nodeapi.Event{ID: "i", At: at, Kind: "k", Severity: nodeapi.SeverityError, Text: "k", Fields: map[string]string{"a": "b c"}}
	if diff := cmp.Diff([]nodeapi.Event{want}, got.Events); diff != "" {
		t.Error(diff)
	}
	accepted = "0"
	if err := n.client.Events(t.Context(), []nodeapi.Event{e}); err == nil || fault.KindOf(err) != fault.Retry {
		t.Error(err)
	}
}

// TestHeartbeatState: the state goes over the wire when the platform doesn't have it, and only then.
func TestHeartbeatState(t *testing.T) {
	var sent []string
	stored, older, down := "", false, false
	n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		var hb nodeapi.Heartbeat
		_ = json.NewDecoder(r.Body).Decode(&hb)
		want := false
		if hb.IsPulse() {
			sent = append(sent, "pulse")
			want = hb.StateHash != stored
		} else {
			sent = append(sent, "whole")
			stored = hb.StateHash
		}
		answer := nodeapi.HeartbeatResponse{Acknowledged: true, WantState: want}
		if !want && !older {
			answer.StateHash = stored
		}
		if down {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		text, _ := json.Marshal(answer)
		_, _ = io.WriteString(w, success(string(text)))
	})
	hb := nodeapi.Heartbeat{BootID: "b", AgentVersion: "1", MountState: nodeapi.MountMounted}
	for _, step := range []struct {
		name   string
		before func()
		want   string
	}{
		{"at first", func() {}, "whole"},
		{"nothing changed", func() { hb.UptimeSeconds = 5 }, "pulse"},
		{"it changed", func() { hb.Generation = 2 }, "whole"},
		{"nothing changed", func() {}, "pulse"},
		{"the platform lost it", func() { stored = "x" }, "pulse whole"},
		{"nothing changed", func() {}, "pulse"},
		{"the platform is away", func() { down = true }, "pulse"},
		{"and is back", func() { down = false }, "whole"},
		{"a platform that doesn't know of it", func() { older, hb.Generation = true, 3 }, "whole"},
		{"still", func() {}, "whole"},
	} {
		sent = nil
		step.before()
		if _, err := n.client.Heartbeat(t.Context(), hb); (err != nil) != down || strings.Join(sent, " ") != step.want {
			t.Errorf("%s: %v, %v", step.name, sent, err)
		}
	}
}
