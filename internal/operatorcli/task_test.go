package operatorcli

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

func compact(t *testing.T, doc json.RawMessage) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, doc); err != nil {
		t.Error(err)
	}
	return b.String()
}

// TestTaskCommands goes through the life of tasks as the operator sees it.
func TestTaskCommands(t *testing.T) {
	p := platformtest.Start(t)
	o := operator{t, p}
	node := p.Enroll("web-1", "amd64")
	var made operatorapi.Task
	o.into(&made, "task", "create", "web-1", "attach", "nginx", "site", "--stage", "--deadline", "90500ms", "--expires-in", "1h")
	if compact(t, made.Options) != `{"modules":["nginx","site"],"stage":true}` || made.DeadlineSeconds != 91 || made.State != "pending" ||
		made.ExpiresAt == nil || made.ExpiresAt.Sub(made.CreatedAt).Round(time.Minute) != time.Hour {
		t.Errorf("%+v", made)
	}
	if out := o.ok("task", "list"); !strings.Contains(out, made.ID) || !strings.Contains(out, "pending") {
		t.Error(out)
	}
	if out := o.ok("task", "cancel", made.ID); !strings.Contains(out, "cancelled by") {
		t.Error(out)
	}
	if out := o.ok("task", "list"); strings.Contains(out, made.ID) {
		t.Error(out)
	}
	if out := o.ok("task", "list", "--all", "--node", "web-1"); !strings.Contains(out, "CANCELLED: cancelled before it was begun") {
		t.Error(out)
	}

	// The node does what it is asked for: the first is done, the second isn't.
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 2 {
			var out nodeapi.LeaseResponse
			p.Do(node, http.MethodPost, nodeapi.PathTaskLease, nodeapi.LeaseRequest{Max: 1, WaitSeconds: 60}).Into(&out)
			for _, l := range out.Tasks {
				call := func(path string, in, into any) {
					p.Do(node, http.MethodPost, nodeapi.TaskPath(path, l.ID), in).Into(into)
				}
				call(nodeapi.PathTaskProgress, nodeapi.TaskProgress{LeaseID: l.LeaseID, Percent: 50, Message: "half", Output: "one\ntwo\x1b[2J\n"}, new(nodeapi.TaskStanding))
				if i == 0 {
					call(nodeapi.PathTaskComplete, nodeapi.CompleteTask{LeaseID: l.LeaseID, Result: json.RawMessage(`{"generation":4}`)}, new(nodeapi.TaskEnd))
				} else {
					call(nodeapi.PathTaskFail, nodeapi.FailTask{LeaseID: l.LeaseID, Code: nodeapi.FailFailed, Error: "no root"}, new(nodeapi.TaskEnd))
				}
			}
		}
	}()
	out := o.ok("task", "create", "web-1", "sync", "--wait")
	for _, want := range []string{"complete", `{"generation":4}`, "one\ntwo?[2J\n", "100%"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	code, out, errs := o.run("task", "create", "web-1", "sync", "--wait")
	if code != 1 || !strings.Contains(out, "no root") || !strings.Contains(errs, "is failed: FAILED: no root") {
		t.Errorf("%d\n%s\n%s", code, out, errs)
	}
	<-done
	var list operatorapi.TaskList
	if o.into(&list, "task", "list", "--all", "--limit", "2"); list.Count != 2 || list.Tasks[0].State != "failed" {
		t.Errorf("%+v", list)
	}
	var detail operatorapi.TaskDetail
	if o.into(&detail, "task", "show", list.Tasks[1].ID); compact(t, detail.Result) != `{"generation":4}` || detail.Output == "" {
		t.Errorf("%+v", detail)
	}
	for name, args := range map[string][]string{
		"there is no node":      {"task", "create", "nobody", "sync"},
		"no node obeys custom":  {"task", "create", "web-1", "custom"},
		"want one of attach":    {"task", "create", "web-1", "exec"},
		`attach needs "modules`: {"task", "create", "web-1", "attach"},
		"a task can't expire":   {"task", "create", "web-1", "sync", "--expires-in", "0s"},
		"expires_in_seconds":    {"task", "create", "web-1", "sync", "--expires-in", "9000h"},
		"there is no task":      {"task", "show", "x"},
		"limit: want 1":         {"task", "list", "--limit", "-1"},
	} {
		if code, _, errs := o.run(args...); code != 1 || !strings.Contains(errs, name) {
			t.Errorf("%v: %d %s", args, code, errs)
		}
	}
}

// TestEventCommand shows what the platform recorded and what a node told, in one table.
func TestEventCommand(t *testing.T) {
	p := platformtest.Start(t)
	o := operator{t, p}
	node := p.Enroll("web-1", "amd64")
	p.Enroll("web-2", "amd64")
	e := nodeapi.Event{ID: "9c3e1a52-4f0b-4d5e-8d52-0c5b1f2f7a10", At: time.Now().Add(time.Hour), Kind: "disk.full", Severity: nodeapi.SeverityError, Text: "no room", Fields: map[string]string{"path": "/var"}}
	p.Do(node, http.MethodPost, nodeapi.PathEvents, nodeapi.EventsRequest{Events: []nodeapi.Event{e}}).Into(new(nodeapi.EventsResponse))
	lines := strings.Split(o.ok("event", "list"), "\n")
	if !strings.Contains(lines[1], "web-1") || !strings.Contains(lines[1], "error") || !strings.Contains(lines[1], "disk.full") || !strings.Contains(lines[2], "node.enrolled") {
		t.Errorf("%q", lines)
	}
	var list eventList
	if o.into(&list, "event", "list", "--node", "web-2"); len(list.Nodes) != 0 || len(list.Platform) == 0 {
		t.Errorf("%+v", list)
	}
	if o.into(&list, "event", "list", "--node", "web-1"); len(list.Nodes) != 1 || list.Nodes[0].Fields["path"] != "/var" {
		t.Errorf("%+v", list)
	}
}
