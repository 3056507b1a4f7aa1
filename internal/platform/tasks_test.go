package platform_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// ask asks a node for something.
func ask(t *testing.T, p *platformtest.Platform, node string, in operatorapi.TaskCreate) operatorapi.Task {
	t.Helper()
	task, err := p.Operator.CreateTask(t.Context(), node, in)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// lease leases tasks as a node does.
func lease(t *testing.T, p *platformtest.Platform, node *platformtest.Node, in nodeapi.LeaseRequest) []nodeapi.LeasedTask {
	t.Helper()
	var out nodeapi.LeaseResponse
	p.Do(node, http.MethodPost, nodeapi.PathTaskLease, in).Into(&out)
	return out.Tasks
}

// onTask makes a call about a task as its node does.
func onTask(p *platformtest.Platform, node *platformtest.Node, path, id string, in any) platformtest.Answer {
	return p.Do(node, http.MethodPost, nodeapi.TaskPath(path, id), in)
}

// TestTask goes the way of a task: asked for, leased, begun, told of, done, shown.
func TestTask(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	node := p.Enroll("web-1", "amd64")
	var beat nodeapi.HeartbeatResponse
	p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, heartbeat()).Into(&beat)
	if beat.TasksWaiting || beat.WantState || beat.StateHash != "" {
		t.Errorf("%+v", beat)
	}
	made := ask(t, p, "web-1", operatorapi.TaskCreate{Kind: "init", Options: json.RawMessage(` {"action": "restart", "modules": ["nginx"]}`), DeadlineSeconds: 90})
	if made.State != "pending" || made.NodeName != "web-1" || made.RequestedBy != "operator" || string(made.Options) != `{"modules":["nginx"],"action":"restart"}` {
		t.Errorf("%+v", made)
	}
	p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, heartbeat()).Into(&beat)
	if !beat.TasksWaiting {
		t.Errorf("%+v", beat)
	}
	got := lease(t, p, node, nodeapi.LeaseRequest{Max: 4, WaitSeconds: 30, Holding: []string{}})
	if len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	want := nodeapi.LeasedTask{
		ID: made.ID, LeaseID: got[0].LeaseID, Kind: nodeapi.TaskInit, Options: made.Options, Attempt: 1, CreatedAt: made.CreatedAt,
		LeaseSeconds: 60, DeadlineSeconds: 90, RequestedBy: "operator",
	}
	if diff := cmp.Diff(want, got[0]); diff != "" || len(got[0].LeaseID) != 32 {
		t.Error(diff)
	}
	id := got[0].LeaseID
	var standing nodeapi.TaskStanding
	onTask(p, node, nodeapi.PathTaskRenew, made.ID, nodeapi.RenewTask{LeaseID: id}).Into(&standing)
	onTask(p, node, nodeapi.PathTaskProgress, made.ID, nodeapi.TaskProgress{LeaseID: id, Percent: 50, Message: "half", Output: "nginx restarted\n"}).Into(&standing)
	if standing != (nodeapi.TaskStanding{LeaseSeconds: 60}) {
		t.Errorf("%+v", standing)
	}
	if cancelled, err := p.Operator.CancelTask(ctx, made.ID); err != nil || cancelled.State != "cancelling" {
		t.Errorf("%+v, %v", cancelled, err)
	}
	onTask(p, node, nodeapi.PathTaskRenew, made.ID, nodeapi.RenewTask{LeaseID: id}).Into(&standing)
	if !standing.Cancel {
		t.Errorf("%+v", standing)
	}
	// It was done all the same.
	for range 2 {
		var end nodeapi.TaskEnd
		onTask(p, node, nodeapi.PathTaskComplete, made.ID, nodeapi.CompleteTask{LeaseID: id, Result: json.RawMessage(`{"units": ["nginx.service"]}`)}).Into(&end)
		if end.State != nodeapi.TaskComplete {
			t.Errorf("%+v", end)
		}
	}
	for path, in := range map[string]any{
		nodeapi.PathTaskRenew:    nodeapi.RenewTask{LeaseID: id},
		nodeapi.PathTaskProgress: nodeapi.TaskProgress{LeaseID: id},
		nodeapi.PathTaskFail:     nodeapi.FailTask{LeaseID: id, Code: nodeapi.FailFailed, Error: "x"},
		nodeapi.PathTaskComplete: nodeapi.CompleteTask{LeaseID: strings.Repeat("0", 32)},
	} {
		if a := onTask(p, node, path, made.ID, in); a.Status != http.StatusConflict || a.Envelope.Code != nodeapi.CodeLeaseLost {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	shown, err := p.Operator.Task(ctx, made.ID)
	if err != nil {
		t.Fatal(err)
	}
	if shown.Task.BegunAt == nil || shown.Task.EndedAt == nil {
		t.Fatalf("%+v", shown)
	}
	wantShown := operatorapi.TaskDetail{Task: operatorapi.Task{
		ID: made.ID, NodeID: node.ID, NodeName: "web-1", Kind: "init", Options: made.Options, State: "complete", RequestedBy: "operator", CreatedAt: made.CreatedAt,
		ExpiresAt: made.ExpiresAt, BegunAt: shown.Task.BegunAt, EndedAt: shown.Task.EndedAt, Attempt: 1, DeadlineSeconds: 90, Percent: 100, Message: "half", CancelledBy: "operator",
	}, Result: json.RawMessage(`{"units":["nginx.service"]}`), Output: "nginx restarted\n"}
	if diff := cmp.Diff(wantShown, shown); diff != "" {
		t.Error(diff)
	}
	for _, which := range []operatorclient.Listing{{}, {Node: "web-1", Limit: 1}, {Node: node.ID, Open: true}} {
		list, err := p.Operator.Tasks(ctx, which)
		if err != nil || (list.Count == 1) == which.Open {
			t.Errorf("%+v: %+v, %v", which, list, err)
		}
	}
}

// TestTaskWakes: a call that waits is answered when there is a task, and when the platform stops.
func TestTaskWakes(t *testing.T) {
	p := platformtest.Start(t)
	node := p.Enroll("web-1", "amd64")
	wait := func() <-chan []nodeapi.LeasedTask {
		got := make(chan []nodeapi.LeasedTask, 1)
		go func() {
			defer close(got) // also where the call fails
			a := p.Do(node, http.MethodPost, nodeapi.PathTaskLease, nodeapi.LeaseRequest{Max: 1, WaitSeconds: 60})
			for a.Status == http.StatusTooManyRequests { // the place is another call's for the moment
				a = p.Do(node, http.MethodPost, nodeapi.PathTaskLease, nodeapi.LeaseRequest{Max: 1, WaitSeconds: 60})
			}
			var out nodeapi.LeaseResponse
			a.Into(&out)
			got <- out.Tasks
		}()
		return got
	}
	first := wait()
	made := ask(t, p, "web-1", operatorapi.TaskCreate{Kind: "sync"})
	if got := <-first; len(got) != 1 || got[0].ID != made.ID {
		t.Fatalf("%+v", got)
	}
	// The second may be had when the first has ended; another node's end is none.
	next := ask(t, p, "web-1", operatorapi.TaskCreate{Kind: "reboot"})
	leased := lease(t, p, node, nodeapi.LeaseRequest{Holding: []string{}})
	waiting := wait()
	onTask(p, node, nodeapi.PathTaskFail, made.ID, nodeapi.FailTask{LeaseID: leased[0].LeaseID, Code: "ODD_1", Error: "no"}).Into(new(nodeapi.TaskEnd))
	if got := <-waiting; len(got) != 1 || got[0].ID != next.ID {
		t.Fatalf("%+v", got)
	}
	// So many may wait; one more is told so, which says that they all do.
	var idle []<-chan []nodeapi.LeasedTask
	for range 4 {
		idle = append(idle, wait())
	}
	for {
		a := p.Do(node, http.MethodPost, nodeapi.PathTaskLease, nodeapi.LeaseRequest{Max: 1})
		if a.Status == http.StatusTooManyRequests && a.Envelope.Code == nodeapi.CodeTooManyRequests && a.Header.Get("Retry-After") != "" {
			break
		}
		var out nodeapi.LeaseResponse
		if a.Into(&out); len(out.Tasks) != 0 {
			t.Fatalf("a task out of nothing: %+v", out)
		}
	}
	p.Stop()
	for _, i := range idle {
		if got := <-i; got == nil || len(got) != 0 {
			t.Errorf("%+v", got)
		}
	}
}

// TestTaskExpires: a lease that isn't renewed is another's.
func TestTaskExpires(t *testing.T) {
	p := platformtest.Start(t)
	node := p.Enroll("web-1", "amd64")
	made := ask(t, p, "web-1", operatorapi.TaskCreate{Kind: "sync"})
	first := lease(t, p, node, nodeapi.LeaseRequest{})[0]
	onTask(p, node, nodeapi.PathTaskRenew, made.ID, nodeapi.RenewTask{LeaseID: first.LeaseID}).Into(new(nodeapi.TaskStanding))
	p.Clock.Advance(61 * time.Second)
	shown, err := p.Operator.Task(t.Context(), made.ID)
	if err != nil || shown.Task.State != "pending" || shown.Task.Attempt != 2 {
		t.Errorf("%+v, %v", shown, err)
	}
	if a := onTask(p, node, nodeapi.PathTaskComplete, made.ID, nodeapi.CompleteTask{LeaseID: first.LeaseID}); a.Envelope.Code != nodeapi.CodeLeaseLost {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	again := lease(t, p, node, nodeapi.LeaseRequest{Holding: []string{first.LeaseID}})
	if len(again) != 1 || again[0].Attempt != 2 || again[0].LeaseID == first.LeaseID {
		t.Fatalf("%+v", again)
	}
	onTask(p, node, nodeapi.PathTaskComplete, made.ID, nodeapi.CompleteTask{LeaseID: again[0].LeaseID}).Into(new(nodeapi.TaskEnd))
}

// TestTaskThatNobodyComesFor: it is given up in its time, which is shown at once, and written down without anybody's asking.
func TestTaskThatNobodyComesFor(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	node := p.Enroll("web-1", "amd64")
	if made := ask(t, p, "web-1", operatorapi.TaskCreate{Kind: "gc"}); made.ExpiresAt == nil || made.ExpiresAt.Sub(made.CreatedAt).Round(time.Minute) != operatorapi.DefaultTaskLife {
		t.Errorf("%+v", made)
	}
	made := ask(t, p, "web-1", operatorapi.TaskCreate{Kind: "reboot", ExpiresInSeconds: 120})
	p.Clock.Advance(2 * time.Minute)
	shown, err := p.Operator.Task(ctx, made.ID)
	if err != nil || shown.Task.State != "failed" || shown.Task.Code != "EXPIRED" || shown.Task.Error == "" {
		t.Errorf("%+v, %v", shown, err)
	}
	if list, err := p.Operator.Tasks(ctx, operatorclient.Listing{Open: true}); err != nil || list.Count != 1 || list.Tasks[0].Kind != "gc" {
		t.Errorf("%+v, %v", list, err)
	}
	p = p.Restart()
	told := func() bool {
		events, err := p.Operator.Events(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(events.Events, func(e operatorapi.Event) bool {
			return e.Kind == "task.expired" && e.NodeID == node.ID && strings.Contains(e.Text, made.ID)
		})
	}
	for !told() {
		// What the platform does on its own begins with it.
		time.Sleep(10 * time.Millisecond)
	}
	if shown, err = p.Operator.Task(ctx, made.ID); err != nil || shown.Task.EndedAt == nil {
		t.Errorf("%+v, %v", shown, err)
	}
	if got := lease(t, p, node, nodeapi.LeaseRequest{Max: 9}); len(got) != 1 || got[0].Kind != nodeapi.TaskGC {
		t.Errorf("%+v", got)
	}
}

// TestTaskOfAnotherNode: what isn't a node's own doesn't exist for it.
func TestTaskOfAnotherNode(t *testing.T) {
	p := platformtest.Start(t)
	node, other := p.Enroll("web-1", "amd64"), p.Enroll("web-2", "amd64")
	made := ask(t, p, "web-1", operatorapi.TaskCreate{Kind: "sync"})
	if got := lease(t, p, other, nodeapi.LeaseRequest{Max: nodeapi.MaxLeased}); len(got) != 0 {
		t.Fatalf("%+v", got)
	}
	id := lease(t, p, node, nodeapi.LeaseRequest{})[0].LeaseID
	for path, in := range map[string]any{
		nodeapi.PathTaskRenew:    nodeapi.RenewTask{LeaseID: id},
		nodeapi.PathTaskProgress: nodeapi.TaskProgress{LeaseID: id, Percent: 1},
		nodeapi.PathTaskComplete: nodeapi.CompleteTask{LeaseID: id},
		nodeapi.PathTaskFail:     nodeapi.FailTask{LeaseID: id, Code: nodeapi.FailFailed, Error: "x"},
	} {
		for name, task := range map[string]string{"another's": made.ID, "nobody's": "none"} {
			if a := onTask(p, other, path, task, in); a.Status != http.StatusNotFound || a.Envelope.Code != nodeapi.CodeNotFound {
				t.Errorf("%s of %s: %d %s", path, name, a.Status, a.Body)
			}
		}
	}
	shown, err := p.Operator.Task(t.Context(), made.ID)
	if err != nil || shown.Task.State != "leased" {
		t.Errorf("%+v, %v", shown, err)
	}
}

// TestTaskAuthorization presents certificates that aren't good to every call about tasks and events, and a node's to the operator's calls.
func TestTaskAuthorization(t *testing.T) {
	p := platformtest.Start(t)
	good, revoked, replaced := p.Enroll("good", "amd64"), p.Enroll("revoked", "amd64"), p.Enroll("replaced", "amd64")
	p.EnrollAgain("replaced")
	if _, err := p.Operator.RevokeNode(t.Context(), "revoked", operatorapi.RevokeRequest{}); err != nil {
		t.Fatal(err)
	}
	made := ask(t, p, "good", operatorapi.TaskCreate{Kind: "sync"})
	id := lease(t, p, good, nodeapi.LeaseRequest{})[0].LeaseID
	for name, node := range map[string]*platformtest.Node{"good": good, "revoked": revoked, "replaced": replaced, "none": nil} {
		for _, c := range []struct {
			path string
			body any
		}{
			{nodeapi.PathTaskLease, nodeapi.LeaseRequest{Holding: []string{id}}},
			{nodeapi.TaskPath(nodeapi.PathTaskRenew, made.ID), nodeapi.RenewTask{LeaseID: id}},
			{nodeapi.TaskPath(nodeapi.PathTaskProgress, made.ID), nodeapi.TaskProgress{LeaseID: id}},
			{nodeapi.PathEvents, nodeapi.EventsRequest{}},
		} {
			want := http.StatusUnauthorized
			if name == "good" {
				want = http.StatusOK
			}
			if a := p.Do(node, http.MethodPost, c.path, c.body); a.Status != want {
				t.Errorf("%s: %s: %d %s", name, c.path, a.Status, a.Body)
			}
		}
	}
	for _, path := range []string{nodeapi.PathTaskComplete, nodeapi.PathTaskFail} {
		for name, node := range map[string]*platformtest.Node{"revoked": revoked, "replaced": replaced, "none": nil} {
			if a := onTask(p, node, path, made.ID, nodeapi.FailTask{LeaseID: id, Code: nodeapi.FailFailed, Error: "x"}); a.Status != http.StatusUnauthorized {
				t.Errorf("%s: %s: %d %s", name, path, a.Status, a.Body)
			}
		}
	}
	for path, method := range map[string]string{
		operatorapi.PathTasks: http.MethodGet, strings.Replace(operatorapi.PathTask, "{task}", made.ID, 1): http.MethodGet,
		strings.Replace(operatorapi.PathTaskCancel, "{task}", made.ID, 1): http.MethodPost,
		strings.Replace(operatorapi.PathNodeTasks, "{node}", "good", 1):   http.MethodPost, operatorapi.PathNodeEvents: http.MethodGet,
	} {
		if a := p.Do(good, method, path, nil); a.Status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	if shown, err := p.Operator.Task(t.Context(), made.ID); err != nil || shown.Task.State != "leased" {
		t.Errorf("%+v, %v", shown, err)
	}
}

// TestTaskRevokedWhileWaiting: a node that is shut out gets no task by the call that it made before.
func TestTaskRevokedWhileWaiting(t *testing.T) {
	p := platformtest.StartWith(t, platform.Options{})
	node := p.Enroll("web-1", "amd64")
	status := make(chan int, 1)
	go func() {
		defer close(status)
		status <- p.Do(node, http.MethodPost, nodeapi.PathTaskLease, nodeapi.LeaseRequest{Max: 1, WaitSeconds: 60}).Status
	}()
	// It waits, or else comes too late, which is the same.
	if _, err := p.Operator.RevokeNode(t.Context(), "web-1", operatorapi.RevokeRequest{}); err != nil {
		t.Fatal(err)
	}
	made := ask(t, p, "web-1", operatorapi.TaskCreate{Kind: "sync"})
	if got := <-status; got != http.StatusUnauthorized {
		t.Errorf("status %d", got)
	}
	if shown, err := p.Operator.Task(t.Context(), made.ID); err != nil || shown.Task.State != "pending" {
		t.Errorf("%+v, %v", shown, err)
	}
}

// TestTaskWords goes through what is refused of a node.
func TestTaskWords(t *testing.T) {
	p := platformtest.Start(t)
	node := p.Enroll("web-1", "amd64")
	made := ask(t, p, "web-1", operatorapi.TaskCreate{Kind: "sync"})
	id := lease(t, p, node, nodeapi.LeaseRequest{})[0].LeaseID
	long := strings.Repeat("x", nodeapi.MaxTaskResult)
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	raw := func(text string) json.RawMessage { return json.RawMessage(text) }
	event := nodeapi.Event{ID: made.ID, At: time.Now(), Kind: "k", Severity: nodeapi.SeverityInfo, Text: "t"}
	events := func(alter func(*nodeapi.Event)) nodeapi.EventsRequest {
		e := event
		alter(&e)
		return nodeapi.EventsRequest{Events: []nodeapi.Event{event, e}}
	}
	many := map[string]string{}
	for c := 'a'; len(many) <= nodeapi.MaxEventFields; c++ {
		many[string(c)] = ""
	}
	task := func(path string) string { return nodeapi.TaskPath(path, made.ID) }
	for name, c := range map[string]struct {
		path   string
		body   any
		status int
		code   nodeapi.Code
	}{
		"too many":           {nodeapi.PathTaskLease, nodeapi.LeaseRequest{Max: 17}, 422, ""},
		"less than none":     {nodeapi.PathTaskLease, nodeapi.LeaseRequest{Max: -1}, 422, ""},
		"no wait":            {nodeapi.PathTaskLease, nodeapi.LeaseRequest{WaitSeconds: -1}, 422, ""},
		"too many held":      {nodeapi.PathTaskLease, nodeapi.LeaseRequest{Holding: make([]string, 65)}, 422, ""},
		"a long lease call":  {nodeapi.PathTaskLease, strings.NewReader(`{"x":"` + long + `"}`), 413, ""},
		"not JSON":           {nodeapi.PathTaskLease, strings.NewReader("{"), 400, ""},
		"no lease":           {task(nodeapi.PathTaskRenew), nodeapi.RenewTask{}, 400, ""},
		"an odd lease":       {task(nodeapi.PathTaskRenew), nodeapi.RenewTask{LeaseID: "x"}, 422, ""},
		"percent":            {task(nodeapi.PathTaskProgress), nodeapi.TaskProgress{LeaseID: id, Percent: 101}, 422, nodeapi.CodeReportRefused},
		"offset":             {task(nodeapi.PathTaskProgress), nodeapi.TaskProgress{LeaseID: id, OutputOffset: -1}, 422, nodeapi.CodeReportRefused},
		"output":             {task(nodeapi.PathTaskProgress), nodeapi.TaskProgress{LeaseID: id, Output: long + "x"}, 422, nodeapi.CodeReportRefused},
		"message":            {task(nodeapi.PathTaskProgress), nodeapi.TaskProgress{LeaseID: id, Message: "a\x1b[1mb"}, 422, nodeapi.CodeReportRefused},
		"a list as result":   {task(nodeapi.PathTaskComplete), nodeapi.CompleteTask{LeaseID: id, Result: raw(`[]`)}, 422, nodeapi.CodeReportRefused},
		"a long result":      {task(nodeapi.PathTaskComplete), nodeapi.CompleteTask{LeaseID: id, Result: raw(`{"x":"` + long + `"}`)}, 422, nodeapi.CodeReportRefused},
		"a deep result":      {task(nodeapi.PathTaskComplete), nodeapi.CompleteTask{LeaseID: id, Result: raw(deep)}, 422, nodeapi.CodeReportRefused},
		"no error":           {task(nodeapi.PathTaskFail), nodeapi.FailTask{LeaseID: id, Code: nodeapi.FailFailed}, 422, nodeapi.CodeReportRefused},
		"no code":            {task(nodeapi.PathTaskFail), nodeapi.FailTask{LeaseID: id, Error: "x"}, 422, nodeapi.CodeReportRefused},
		"too many events":    {nodeapi.PathEvents, nodeapi.EventsRequest{Events: make([]nodeapi.Event, 101)}, 422, ""},
		"event id":           {nodeapi.PathEvents, events(func(e *nodeapi.Event) { e.ID = "x" }), 422, nodeapi.CodeEventRefused},
		"event kind":         {nodeapi.PathEvents, events(func(e *nodeapi.Event) { e.Kind = "A" }), 422, nodeapi.CodeEventRefused},
		"event severity":     {nodeapi.PathEvents, events(func(e *nodeapi.Event) { e.Severity = "" }), 422, nodeapi.CodeEventRefused},
		"event time":         {nodeapi.PathEvents, events(func(e *nodeapi.Event) { e.At = time.Time{} }), 422, nodeapi.CodeEventRefused},
		"event without text": {nodeapi.PathEvents, events(func(e *nodeapi.Event) { e.Text = "" }), 422, nodeapi.CodeEventRefused},
		"event text":         {nodeapi.PathEvents, events(func(e *nodeapi.Event) { e.Text = "a\nb" }), 422, nodeapi.CodeEventRefused},
		"event fields":       {nodeapi.PathEvents, events(func(e *nodeapi.Event) { e.Fields = many }), 422, nodeapi.CodeEventRefused},
		"event field":        {nodeapi.PathEvents, events(func(e *nodeapi.Event) { e.Fields = map[string]string{"a": long} }), 422, nodeapi.CodeEventRefused},
	} {
		a := p.Do(node, http.MethodPost, c.path, c.body)
		if a.Status != c.status || a.Envelope.Error == "" {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
		// A node gives up what it has to tell for these codes alone: they are for nothing else.
		if got := a.Envelope.Code; (got == nodeapi.CodeEventRefused || got == nodeapi.CodeReportRefused) != (c.code != "") || c.code != "" && got != c.code {
			t.Errorf("%s: %s, want %s", name, got, c.code)
		}
	}
	// Nothing of it was kept, and of a call with one bad event nothing at all.
	list, err := p.Operator.NodeEvents(t.Context(), operatorclient.Listing{})
	if err != nil || list.Count != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if shown, err := p.Operator.Task(t.Context(), made.ID); err != nil || shown.Task.State != "leased" || shown.Output != "" {
		t.Errorf("%+v, %v", shown, err)
	}
}

// TestTaskCreate goes through what an operator may ask for, and what not.
func TestTaskCreate(t *testing.T) {
	p := platformtest.Start(t)
	p.Enroll("web-1", "amd64")
	id := "9c3e1a52-4f0b-4d5e-8d52-0c5b1f2f7a10"
	for name, c := range map[string]struct {
		in   operatorapi.TaskCreate
		want string // in the error; else the options
	}{
		"sync":              {operatorapi.TaskCreate{Kind: "sync"}, `ok {}`},
		"staged":            {operatorapi.TaskCreate{Kind: "update", Options: json.RawMessage(`{"stage":true,"retry":false}`)}, `ok {"stage":true}`},
		"null":              {operatorapi.TaskCreate{Kind: "gc", Options: json.RawMessage(`null`)}, `ok {}`},
		"apply_config":      {operatorapi.TaskCreate{Kind: "apply_config"}, `ok {}`},
		"restart":           {operatorapi.TaskCreate{Kind: "restart", Options: json.RawMessage(`{"modules":["a"]}`)}, `ok {"modules":["a"],"action":"restart"}`},
		"terminate":         {operatorapi.TaskCreate{Kind: "terminate"}, "no node obeys terminate"},
		"a shell":           {operatorapi.TaskCreate{Kind: "ssh_command", Options: json.RawMessage(`{"command":"id"}`)}, "no node obeys ssh_command"},
		"unknown":           {operatorapi.TaskCreate{Kind: "exec"}, "want one of attach, detach, gc"},
		"none":              {operatorapi.TaskCreate{}, "want one of"},
		"no modules":        {operatorapi.TaskCreate{Kind: "attach"}, `attach needs "modules"`},
		"another's option":  {operatorapi.TaskCreate{Kind: "sync", Options: json.RawMessage(`{"generation":3}`)}, `sync has no option "generation"`},
		"an unknown option": {operatorapi.TaskCreate{Kind: "sync", Options: json.RawMessage(`{"x":3}`)}, "options: "},
		"a list":            {operatorapi.TaskCreate{Kind: "sync", Options: json.RawMessage(`[]`)}, "want a JSON object"},
		"two modules":       {operatorapi.TaskCreate{Kind: "init", Options: json.RawMessage(`{"modules":["a","b"],"action":"start"}`)}, "about one module"},
		"an odd action":     {operatorapi.TaskCreate{Kind: "init", Options: json.RawMessage(`{"modules":["a"],"action":"rm"}`)}, "want one of start"},
		"an odd module":     {operatorapi.TaskCreate{Kind: "attach", Options: json.RawMessage(`{"modules":["a\u001b"]}`)}, "printable"},
		"keep":              {operatorapi.TaskCreate{Kind: "gc", Options: json.RawMessage(`{"keep":-1}`)}, "keep"},
		"no time":           {operatorapi.TaskCreate{Kind: "sync", DeadlineSeconds: -1}, "deadline_seconds"},
		"too much time":     {operatorapi.TaskCreate{Kind: "sync", DeadlineSeconds: 1 << 40}, "deadline_seconds"},
		"no life":           {operatorapi.TaskCreate{Kind: "sync", ExpiresInSeconds: -1}, "expires_in_seconds"},
		"too long a life":   {operatorapi.TaskCreate{Kind: "sync", ExpiresInSeconds: 1 << 40}, "expires_in_seconds"},
		"an odd ID":         {operatorapi.TaskCreate{Kind: "sync", ID: "x"}, "want a UUID"},
	} {
		made, err := p.Operator.CreateTask(t.Context(), "web-1", c.in)
		text := "ok " + string(made.Options)
		if err != nil {
			text = err.Error()
		}
		if !strings.Contains(text, c.want) || strings.HasPrefix(c.want, "ok ") && text != c.want {
			t.Errorf("%s: %s", name, text)
		}
	}
	first, second := ask(t, p, "web-1", operatorapi.TaskCreate{Kind: "gc", ID: id}), ask(t, p, "web-1", operatorapi.TaskCreate{Kind: "gc", ID: id})
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error(diff)
	}
	for what, err := range map[string]error{
		"another task": func() error {
			_, err := p.Operator.CreateTask(t.Context(), "web-1", operatorapi.TaskCreate{Kind: "sync", ID: id})
			return err
		}(),
		"there is no nod": func() error {
			_, err := p.Operator.CreateTask(t.Context(), "nobody", operatorapi.TaskCreate{Kind: "sync"})
			return err
		}(),
		"there is no tas": func() error { _, err := p.Operator.Task(t.Context(), "../nodes"); return err }(),
		"no task":         func() error { _, err := p.Operator.CancelTask(t.Context(), "none"); return err }(),
		"limit":           func() error { _, err := p.Operator.Tasks(t.Context(), operatorclient.Listing{Limit: -1}); return err }(),
		"no node": func() error {
			_, err := p.Operator.NodeEvents(t.Context(), operatorclient.Listing{Node: "nobody"})
			return err
		}(),
	} {
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestNodeEvents: what a node tells is there once, for the operator to see.
func TestNodeEvents(t *testing.T) {
	p := platformtest.Start(t)
	node := p.Enroll("web-1", "amd64")
	e := nodeapi.Event{
		ID: "9c3e1a52-4f0b-4d5e-8d52-0c5b1f2f7a10", At: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), Kind: "task.done", Severity: nodeapi.SeverityWarning,
		Text: "é done", Fields: map[string]string{"task": "x"},
	}
	for range 2 {
		var out nodeapi.EventsResponse
		p.Do(node, http.MethodPost, nodeapi.PathEvents, nodeapi.EventsRequest{Events: []nodeapi.Event{e, e}}).Into(&out)
		if out.Accepted != 2 {
			t.Errorf("%+v", out)
		}
	}
	list, err := p.Operator.NodeEvents(t.Context(), operatorclient.Listing{Node: "web-1"})
	if err != nil || len(list.Events) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	want := operatorapi.NodeEvent{
		ID: e.ID, NodeID: node.ID, NodeName: "web-1", At: e.At, ReceivedAt: list.Events[0].ReceivedAt, Kind: e.Kind, Severity: "warning", Text: e.Text, Fields: e.Fields,
	}
	if diff := cmp.Diff(want, list.Events[0]); diff != "" {
		t.Error(diff)
	}
}

// TestPulse: a heartbeat without its state is enough as long as the platform has that state; a change of the list calls the node.
func TestPulse(t *testing.T) {
	p := platformtest.Start(t)
	p.Publish(platformtest.Module{Name: "base", Version: "1.0", Files: map[string]string{"usr/x": "x"}})
	node := p.Enroll("web-1", "amd64")
	hb := heartbeat()
	hb.StateHash = hb.Hash()
	beat := func(body any) nodeapi.HeartbeatResponse {
		t.Helper()
		var out nodeapi.HeartbeatResponse
		p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, body).Into(&out)
		return out
	}
	if got := beat(hb.Pulse()); !got.WantState || got.StateHash != "" || !got.Acknowledged || got.NextPollSeconds == 0 || got.ConfigDigest == "" {
		t.Errorf("%+v", got)
	}
	if got := beat(hb); got.WantState || got.StateHash != hb.StateHash || got.Reconcile {
		t.Errorf("%+v", got)
	}
	pulse := hb.Pulse()
	pulse.UptimeSeconds = 4711
	if got := beat(pulse); got.WantState || got.StateHash != hb.StateHash {
		t.Errorf("%+v", got)
	}
	shown, err := p.Operator.Node(t.Context(), "web-1")
	if err != nil || shown.Node.Report.UptimeSeconds != 4711 || shown.Node.Report.RootDigest != hb.RootDigest {
		t.Errorf("%+v, %v", shown.Node.Report, err)
	}
	if _, err := p.Operator.Assign(t.Context(), "web-1", operatorapi.AssignmentCreate{Module: "base"}); err != nil {
		t.Fatal(err)
	}
	if got := beat(pulse); !got.Reconcile {
		t.Errorf("%+v", got)
	}
	p.Do(node, http.MethodGet, nodeapi.PathModules, nil).Into(new(nodeapi.ModuleList))
	if got := beat(pulse); got.Reconcile {
		t.Errorf("%+v", got)
	}
	p.Publish(platformtest.Module{Name: "base", Version: "1.1", Files: map[string]string{"usr/x": "y"}})
	if got := beat(pulse); !got.Reconcile {
		t.Errorf("another version: %+v", got)
	}
	for name, alter := range map[string]func(*nodeapi.Pulse){
		"hash": func(p *nodeapi.Pulse) { p.StateHash = "x" },
		"boot": func(p *nodeapi.Pulse) { p.BootID = "" },
		"load": func(p *nodeapi.Pulse) { p.LoadAverage = "\n" },
		"time": func(p *nodeapi.Pulse) { p.UptimeSeconds = -1 },
	} {
		bad := pulse
		if alter(&bad); p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, bad).Status < 400 {
			t.Errorf("%s is taken", name)
		}
	}
}
