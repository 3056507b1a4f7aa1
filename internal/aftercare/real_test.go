package aftercare

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/health/systemd"
)

// real is a system with a real systemd, whose files are those of a tree below /usr/local/lib.
type real struct {
	t    *testing.T
	have files
	// settle is how long a unit that was started is given to end.
	settle time.Duration
}

// become changes the machine's files to those of another tree, with what that calls for, and returns that.
func (r *real) become(to files) (*Plan, Report) {
	t := r.t
	t.Helper()
	in := Input{From: base.with(r.have).tree(), To: base.with(to).tree(), Systemd: true}
	in.Difference = difference.Compare(in.From, in.To)
	o, err := Observe(t.Context(), systemd.Manager{}, Scan{View: View{Root: "/"}}, in.Difference, nil)
	must(t, err)
	in.Units, in.Processes = o.Units, o.Processes
	p := Decide(in)
	runner := &Runner{UnitTime: time.Minute, SettleTime: r.settle}
	if report := runner.Before(t.Context(), p); len(report.Failed()) > 0 {
		t.Error(report.Failed())
	}
	for _, e := range in.Difference.Entries {
		must(t, place(e))
	}
	r.have = to
	return p, runner.After(t.Context(), p)
}

// place brings one path of the machine in step.
func place(e difference.Entry) error {
	switch {
	case e.Kind == difference.Removed:
		return os.RemoveAll(e.Path)
	case e.To.Len() > 0 || isDirectory(e.To):
		return os.MkdirAll(e.Path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(e.Path), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(e.Path); err != nil {
		return err
	}
	if e.To.Target != "" {
		return os.Symlink(e.To.Target, e.Path)
	}
	content := e.To.Inline
	if program, ok := strings.CutPrefix(string(content), "copy of "); ok {
		program, _, _ = strings.Cut(program, "\n")
		text, err := os.ReadFile(program)
		if err != nil {
			return err
		}
		content = append(text, '\n')
	}
	return os.WriteFile(e.Path, content, 0o755)
}

func (r *real) unit() systemd.UnitState {
	r.t.Helper()
	u, err := systemd.Manager{}.Unit(r.t.Context(), "aftercare-test.service")
	must(r.t, err)
	return u
}

// TestRealSystemd takes a machine through the life of a module with a service. test/vm runs it in a virtual machine.
func TestRealSystemd(t *testing.T) {
	if os.Getenv("POWERNODE_TEST_SYSTEMD") == "" {
		t.Skip("changes the machine's systemd and users; make test-vm runs it in a virtual machine (POWERNODE_TEST_SYSTEMD)")
	}
	const (
		dir     = "/usr/local/lib/systemd/system/"
		name    = "aftercare-test.service"
		program = "/usr/local/lib/aftercare/sleep"
	)
	text := "[Service]\nUser=aftercare-test\nExecStart=" + program + " 100000\nExecReload=/bin/true\nEnvironmentFile=-/etc/aftercare-test/env\n"
	module := files{
		dir + name: text, dir + "multi-user.target.wants/" + name: "-> ../" + name, program: "copy of /bin/sleep\n1",
		"/usr/local/lib/sysusers.d/aftercare.conf": "u aftercare-test -\n", "/usr/local/lib/tmpfiles.d/aftercare.conf": "d /run/aftercare-test 0750 aftercare-test\n",
		"/etc/aftercare-test/conf": "1",
	}
	r := &real{t: t, have: files{}}
	p, report := r.become(module)
	want := []string{"run /usr/bin/systemd-sysusers aftercare.conf", "run /usr/bin/systemd-tmpfiles --create aftercare.conf", "daemon-reload", "start " + name}
	if diff := cmp.Diff(want, p.words()); diff != "" || len(report.Failed()) > 0 {
		t.Fatalf("%v\n%s", report.Failed(), diff)
	}
	first := r.unit()
	if first.Active != "active" || first.MainPID == 0 {
		t.Errorf("%+v", first)
	}
	if _, err := user.Lookup("aftercare-test"); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat("/run/aftercare-test"); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("%v, %v", info, err)
	}

	for _, c := range []struct {
		what string
		to   files
		want []string
		same bool // the process goes on
	}{
		{"a description", module.with(files{dir + name: "[Unit]\nDescription=x\n" + text}), []string{"daemon-reload"}, true},
		{"a setting", module.with(files{dir + name: text + "Nice=5\n"}), []string{"daemon-reload", "restart " + name}, false},
		{"its configuration", module.with(files{"/etc/aftercare-test/conf": "2"}), []string{"daemon-reload", "restart " + name}, false},
		{"only its configuration", module.with(files{"/etc/aftercare-test/conf": "3"}), []string{"reload " + name}, true},
		{"its environment", module.with(files{"/etc/aftercare-test/env": "A=1"}), []string{"restart " + name}, false},
		{"its program", module.with(files{"/etc/aftercare-test/env": "A=1", program: "copy of /bin/sleep\n2"}), []string{"restart " + name}, false},
	} {
		before := r.unit()
		p, report := r.become(c.to)
		if diff := cmp.Diff(c.want, p.words()); diff != "" || len(report.Failed()) > 0 {
			t.Errorf("%s: %v\n%s", c.what, report.Failed(), diff)
		}
		after := r.unit()
		if after.Active != "active" || (after.MainPID == before.MainPID) != c.same {
			t.Errorf("%s: %+v, then %+v", c.what, before, after)
		}
	}

	// What somebody stopped by hand stays so; what is gone is stopped; what ends at once is told.
	must(t, exec.CommandContext(t.Context(), "systemctl", "stop", name).Run())
	if p, report := r.become(module); len(report.Failed()) > 0 || r.unit().Active != "inactive" {
		t.Errorf("%q, %v, %+v", p.words(), report.Failed(), r.unit())
	}
	must(t, exec.CommandContext(t.Context(), "systemctl", "start", name).Run())
	if p, report := r.become(files{}); len(report.Failed()) > 0 || len(p.Stop) != 1 || r.unit().Active != "inactive" {
		t.Errorf("%q, %v, %+v", p.words(), report.Failed(), r.unit())
	}
	// Under emulation it takes its time until somebody sees that.
	r.settle = 10 * time.Second
	_, report = r.become(module.with(files{dir + name: "[Service]\nExecStart=/bin/false\n"}))
	if failed := report.Failed(); len(failed) != 1 || failed[0].What != name || failed[0].File != dir+name {
		t.Errorf("%+v", failed)
	}
	if err := fmt.Sprint(report.Failed()); !strings.Contains(err, "right after its start (exit-code)") {
		t.Error(err)
	}
	r.become(files{})
}
