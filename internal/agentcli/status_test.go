package agentcli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/change/desired"
	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/health/systemd/systemdtest"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/services"
	"github.com/powernode/powernode-agent/internal/store"
)

func TestStatusExitCode(t *testing.T) {
	mounts := []mountDoc{{Path: "/"}}
	for _, c := range []struct {
		name string
		doc  statusDoc
		want string
	}{
		{"in step", statusDoc{InStep: true, Mounts: mounts}, ""},
		{"out of step", statusDoc{Mounts: mounts}, "exit status 8"},
		{"not mounted", statusDoc{}, "exit status 3"},
		{"damaged", statusDoc{Damage: []reconcile.Damage{{}}}, "exit status 2"},
	} {
		got := ""
		if err := c.doc.exit(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestStatusTable(t *testing.T) {
	old, now := fsverity.Digest{1}, fsverity.Digest{2}
	d := statusDoc{
		InStep: true, Generation: 2, RootDigest: now, Level: "enforced",
		Mounts:   []mountDoc{{Path: "/", RootDigest: old, Generation: 1}, {Path: "/etc", RootDigest: now, Generation: 2}, {Path: "/opt"}, {Path: "/usr", RootDigest: now, Generation: 2}},
		Delta:    &deltaDoc{Files: 200_000, Bytes: 1 << 20, More: true, Conflicts: []delta.Conflict{{Path: "/etc/x", Local: delta.File, Below: delta.Content}}},
		Modules:  statusModules([]store.GenerationModule{{Name: "base", Version: "1", ID: "x"}, {Name: "site", Version: "2", EffectivePriority: 7}}),
		Local:    &localDoc{Attached: []string{"site"}, Detached: []string{"app"}},
		Pending:  &pendingDoc{Staged: 3},
		Services: []serviceDoc{{Module: "site", Service: "web", Active: "active", Sub: "running", Health: services.HealthGood, Ports: []module.Port{{Port: 80, Protocol: "tcp"}}}, {Module: "base"}},
		Processes: []aftercare.Process{
			{PID: 7, Name: "web", Unit: "web.service", Uses: []aftercare.Use{{Path: "/usr/sbin/web", How: aftercare.AsProgram}}, More: 2}, {PID: 8, Name: "sh", Uses: []aftercare.Use{{Path: "/usr"}}},
		},
		MoreProcesses: 5,
	}
	var b bytes.Buffer
	if err := d.table(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"status:           in step\n",
		"mounted:          root 010000000000 (generation 1): /\nmounted:          root 020000000000 (generation 2): /etc, /usr\nmounted:          something else: /opt\n",
		"changed here:     more than 200000 files, 1.0 MiB\nconflict:         /etc/x (local file)",
		"staged:           generation 3, which the next boot tries\nattached here:    site\ndetached here:    app\n",
		"\nMODULE  VERSION  ORIGIN    PRIORITY  SEAL          MANIFEST\nsite    2        local     7 ", "\nbase    1        platform  0 ",
		"\nweb      site    active (running)  healthy  80/tcp\ninit     base    -                 -        -\n",
		"\nweb      7    web.service  /usr/sbin/web and 2 more\nsh       8    -            /usr\nand 5 more\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
}

func TestStatusOfServices(t *testing.T) {
	run := t.TempDir()
	d := statusDoc{}
	if d.services(t.Context(), run); len(d.Services)+len(d.Reasons)+len(d.Remarks) != 0 {
		t.Errorf("without services: %+v", d)
	}
	if err := os.MkdirAll(filepath.Join(run, "systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
	set := services.MakeAll([]services.Module{
		{Name: "app", Version: "1", Manifest: &module.Manifest{Name: "app", Services: []module.Service{
			{Name: "web", StartCommand: "/bin/web", RestartPolicy: "always", ExposedPorts: []module.Port{{Port: 80, Protocol: "tcp"}}}, {Name: "job", StartCommand: "/bin/job", RestartPolicy: "always"},
		}}},
		{Name: "bad", Version: "1", Manifest: &module.Manifest{Name: "bad", Security: module.Security{Privileged: true}, Services: []module.Service{{Name: "x", StartCommand: "/bin/x", RestartPolicy: "always"}}}},
	}, services.Node{Agent: "/agent"})
	if _, err := services.Place(run, set); err != nil {
		t.Fatal(err)
	}
	if d.services(t.Context(), run); len(d.Services) != 2 || d.Services[0].Active != "" || len(d.Remarks) != 0 {
		t.Errorf("without systemd: %+v", d)
	}
	f := &systemdtest.Fake{Properties: map[string]map[string]any{
		set.Modules[0].Services[0].Unit: {"ActiveState": "active", "SubState": "running"},
		set.Modules[0].Services[1].Unit: {"ActiveState": "failed", "SubState": "failed"},
	}}
	f.Start(t, run)
	d = statusDoc{}
	d.services(t.Context(), run)
	states := make(map[string]string)
	for _, s := range d.Services {
		states[s.Service] = s.Active
	}
	if states["web"] == states["job"] || len(d.Reasons) != 2 || !strings.Contains(strings.Join(d.Reasons, "\n"), "of module bad aren't there") || !strings.Contains(strings.Join(d.Reasons, "\n"), "failed; powernode-agent init app status says more") {
		t.Errorf("%v, %q, %q", states, d.Reasons, d.Remarks)
	}
	if wrong := (serviceDoc{Active: "active", Health: services.HealthBad}).wrong(); wrong != "is unhealthy" {
		t.Error(wrong)
	}
	if wrong := (serviceDoc{Active: "inactive"}).wrong(); wrong != "" {
		t.Error(wrong)
	}
}

func TestStatusOfWhatIsPending(t *testing.T) {
	dir, run := t.TempDir(), t.TempDir()
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := desired.WriteLocal(dir, desired.Local{}.Detach("app"), nil); err != nil {
		t.Fatal(err)
	}
	var d statusDoc
	d.pending(st, dir, run, 1)
	if d.Pending != nil || d.Local == nil || len(d.Local.Detached) != 1 || len(d.Reasons) != 0 {
		t.Errorf("%+v", d)
	}
	if err := os.WriteFile(filepath.Join(run, "confirm.json"), []byte(`{"generation":2,"back_to_generation":1,"deadline_uptime_ns":`+time.Duration(1<<60).String()+`}`), 0o600); err != nil {
		t.Fatal(err)
	}
	d = statusDoc{}
	if d.pending(st, dir, run, 1); len(d.Remarks) != 1 {
		t.Errorf("a record that can't be read: %+v", d)
	}
	if err := os.WriteFile(filepath.Join(run, "confirm.json"), []byte(`{"generation":2,"back_to_generation":1,"local_before":{},"deadline_uptime_ns":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	d = statusDoc{}
	if d.pending(st, dir, run, 1); d.Pending == nil || d.Pending.Confirm == nil || d.Pending.Confirm.LeftSeconds != 0 || len(d.Reasons) != 1 {
		t.Errorf("%+v", d)
	}
}

func TestDrift(t *testing.T) {
	last := change.Last{
		Assigned: []change.LastModule{{Name: "a", Version: "1"}, {Name: "b", Version: "2"}, {Name: "c", Version: "1"}, {Name: "d", Version: "2"}, {Name: "e", Version: "3"}},
		Failed:   []change.Failure{{Name: "b", Version: "2", Reason: "unsigned"}, {Name: "e", Version: "3", Reason: "was so"}},
	}
	running := statusModules([]store.GenerationModule{
		{Name: "a", Version: "1", ID: "x"}, {Name: "b", Version: "1", ID: "x"}, {Name: "d", Version: "1", ID: "x"}, {Name: "e", Version: "3", ID: "x"}, {Name: "f", Version: "1", ID: "x"}, {Name: "g", Version: "1"},
	})
	want := []string{"b 2 is assigned, and 1 runs: unsigned", "c 1 is assigned, and doesn't run", "d 2 is assigned, and 1 runs", "f 1 runs, and isn't assigned"}
	var got []string
	for _, m := range driftOf(last, running) {
		got = append(got, m.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	run := t.TempDir()
	if err := os.WriteFile(filepath.Join(run, change.LastName), []byte(`{"at":"2026-01-02T03:04:05Z","assigned":[{"name":"a","version":"2"}],"refused":"most would go"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	d := statusDoc{Modules: statusModules([]store.GenerationModule{{Name: "a", Version: "1", ID: "x"}})}
	if d.drift(run); d.Drift == nil || len(d.Reasons) != 1 || len(d.driftRows()) != 1 {
		t.Errorf("%+v", d)
	}
	d = statusDoc{}
	if d.drift(t.TempDir()); d.Drift != nil || len(d.Reasons)+len(d.Remarks) != 0 {
		t.Errorf("%+v", d)
	}
}
