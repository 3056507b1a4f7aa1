package aftercare

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/module"
)

const (
	webUnit = "/usr/lib/systemd/system/web.service"
	wanted  = "/usr/lib/systemd/system/multi-user.target.wants/"
	webText = "[Unit]\nDescription=Web\n[Service]\nType=notify\nExecStart=/usr/sbin/web -c /etc/web/web.conf\n[Install]\nWantedBy=multi-user.target\n"
)

// web is a root with a service.
var web = base.with(files{webUnit: webText, wanted + "web.service": "-> ../web.service", "/usr/sbin/web": "web 1", "/etc/web/web.conf": "1"})

func reloads(u *systemd.LoadedUnit) { u.CanReload = true }

func TestUnits(t *testing.T) {
	running := []systemd.LoadedUnit{active("multi-user.target"), runs("web.service", "/usr/sbin/web", reloads)}
	for _, c := range []struct {
		name     string
		from, to files
		units    []systemd.LoadedUnit
		set      func(*Input)
		want     []string
	}{
		{name: "it comes", from: base, to: web, units: []systemd.LoadedUnit{active("multi-user.target")}, want: []string{"daemon-reload", "start web.service"}},
		{name: "it comes, and nothing wants it", from: base, to: web.with(files{wanted + "web.service": ""}), units: running[:1], want: []string{"daemon-reload"}},
		{name: "what wants it isn't active", from: base, to: web, want: []string{"daemon-reload"}},
		{
			name: "a link that was there before it", from: base.with(files{wanted + "web.service": "-> ../web.service"}), to: web, units: running[:1],
			want: []string{"daemon-reload", "start web.service"},
		},
		{name: "disabled here", from: base, to: web, units: running[:1], set: local(wanted + "web.service"), want: []string{"daemon-reload"}},
		{name: "wanted but masked by the image", from: base, to: web.with(files{"/etc/systemd/system/web.service": "-> /dev/null"}), units: running[:1], want: []string{"daemon-reload"}},
		{name: "it was stopped by hand", from: web, to: web.with(files{webUnit: webText + "#\n"}), units: running[:1], want: []string{"daemon-reload"}},
		{name: "it goes away", from: web, to: base, units: running, want: []string{"stop web.service", "daemon-reload"}},
		{name: "it goes away, and a local one is there", from: web, to: base, units: running, set: local("/etc/systemd/system/web.service"), want: []string{"daemon-reload", "restart web.service"}},
		{name: "it goes away, and isn't running", from: web, to: base, want: []string{"daemon-reload"}},
		{name: "the image masks it", from: web, to: web.with(files{"/etc/systemd/system/web.service": "-> /dev/null"}), units: running, want: []string{"stop web.service", "daemon-reload"}},
		{name: "an empty file is a mask", from: web, to: web.with(files{"/etc/systemd/system/web.service": "empty"}), units: running, want: []string{"stop web.service", "daemon-reload"}},
		{name: "its file changes", from: web, to: web.with(files{webUnit: webText + "[Service]\nNice=1\n"}), units: running, want: []string{"daemon-reload", "restart web.service"}},
		{name: "its file changes in words only", from: web, to: web.with(files{webUnit: "# new\n" + strings.ReplaceAll(webText, "=Web", "=Web server")}), units: running, want: []string{"daemon-reload"}},
		{name: "a file that a higher one hides", from: web.with(files{"/etc/systemd/system/web.service": webText}), to: web.with(files{"/etc/systemd/system/web.service": webText, webUnit: "[Service]\nNice=1\n"}), units: running, want: []string{"daemon-reload"}},
		{
			name: "a file that a local one hides", from: web, to: web.with(files{webUnit: webText + "[Service]\nNice=1\n"}), units: running,
			set: local("/etc/systemd/system/web.service"), want: []string{"daemon-reload"},
		},
		{
			name: "systemd has it from elsewhere", from: web, to: web.with(files{webUnit: webText + "[Service]\nNice=1\n"}),
			units: []systemd.LoadedUnit{runs("web.service", "/usr/sbin/web", func(u *systemd.LoadedUnit) { u.Fragment = "/run/systemd/system/web.service" })},
			want:  []string{"daemon-reload"},
		},
		{name: "a drop-in comes", from: web, to: web.with(files{webUnit + ".d/a.conf": "[Service]\nNice=1\n"}), units: running, want: []string{"daemon-reload", "restart web.service"}},
		{name: "a drop-in of order", from: web, to: web.with(files{webUnit + ".d/a.conf": "[Unit]\nAfter=x\n"}), units: running, want: []string{"daemon-reload"}},
		{
			name: "a drop-in by prefix", from: web.with(files{webUnit: "", "/usr/lib/systemd/system/a-b.service": webText}),
			to:    web.with(files{webUnit: "", "/usr/lib/systemd/system/a-b.service": webText, "/etc/systemd/system/a-.service.d/x.conf": "[Service]\nNice=1"}),
			units: []systemd.LoadedUnit{runs("a-b.service", "/usr/sbin/web", nil)}, want: []string{"daemon-reload", "restart a-b.service"},
		},
		{
			name: "a drop-in for all", from: web, to: web.with(files{"/etc/systemd/system/service.d/x.conf": "[Service]\nNice=1"}), units: running,
			want: []string{"daemon-reload", "/etc/systemd/system/service.d/x.conf is for all units of its kind: it takes effect for each when that is started again"},
		},
		{
			name: "a template", from: web.with(files{"/usr/lib/systemd/system/w@.service": webText}), to: web.with(files{"/usr/lib/systemd/system/w@.service": webText + "[Service]\nNice=1"}),
			units: []systemd.LoadedUnit{runs("w@1.service", "/usr/sbin/web", func(u *systemd.LoadedUnit) { u.Fragment = "/usr/lib/systemd/system/w@.service" })},
			want:  []string{"daemon-reload", "restart w@1.service"},
		},
		{name: "its program changes", from: web, to: web.with(files{"/usr/sbin/web": "web 2"}), units: running, want: []string{"restart web.service"}},
		{name: "its program becomes a link", from: web, to: web.with(files{"/usr/sbin/web": "-> web2", "/usr/sbin/web2": "web 2"}), units: running, want: []string{"restart web.service"}},
		{name: "its program by a link", from: web.with(files{"/usr/sbin/web": "-> web1", "/usr/sbin/web1": "1"}), to: web.with(files{"/usr/sbin/web": "-> web1", "/usr/sbin/web1": "2"}), units: running, want: []string{"restart web.service"}},
		{name: "its program goes away", from: web, to: web.with(files{"/usr/sbin/web": ""}), units: running, want: []string{"restart web.service"}},
		{name: "its program is a local one", from: web, to: web.with(files{"/usr/sbin/web": "web 2"}), units: running, set: local("/usr/sbin/web")},
		{
			name: "what it is given to run changes", from: web.with(files{"/usr/lib/web/main.py": "1"}), to: web.with(files{"/usr/lib/web/main.py": "2"}),
			units: []systemd.LoadedUnit{runs("web.service", "/usr/bin/python3", func(u *systemd.LoadedUnit) { u.Arguments = []string{"python3", "/usr/lib/web/main.py"} })},
			want:  []string{"restart web.service"},
		},
		{
			name: "a job isn't run again", from: web, to: web.with(files{"/usr/sbin/web": "web 2"}),
			units: []systemd.LoadedUnit{runs("web.service", "/usr/sbin/web", func(u *systemd.LoadedUnit) { u.Type = "oneshot" })},
		},
		{
			name: "a job that describes itself otherwise is", from: web, to: web.with(files{webUnit: webText + "[Service]\nNice=1\n"}),
			units: []systemd.LoadedUnit{runs("web.service", "/usr/sbin/web", func(u *systemd.LoadedUnit) { u.Type = "oneshot" })},
			want:  []string{"daemon-reload", "restart web.service"},
		},
		{
			name: "a job of the machine's start", from: web, to: web.with(files{webUnit: "[Unit]\nDefaultDependencies=no\n[Service]\nNice=1\n"}),
			units: []systemd.LoadedUnit{runs("web.service", "/usr/sbin/web", func(u *systemd.LoadedUnit) { u.Type = "oneshot" })},
			want:  []string{"daemon-reload", "later web.service: " + webUnit + " differs, and it is part of the start of the machine"},
		},
		{
			name: "a socket lets its service go first", from: web.with(files{"/usr/lib/systemd/system/web.socket": "[Socket]\nListenStream=1"}),
			to:    web.with(files{"/usr/lib/systemd/system/web.socket": "[Socket]\nListenStream=2", "/usr/sbin/web": "web 2"}),
			units: append([]systemd.LoadedUnit{runs("web.socket", "", nil)}, running...), want: []string{"daemon-reload", "restart web.service", "restart web.socket"},
		},
		{
			name: "and stops first", from: web.with(files{"/usr/lib/systemd/system/web.socket": "[Socket]\nListenStream=1"}), to: base,
			units: append(running, runs("web.socket", "", nil)), want: []string{"stop web.socket", "stop web.service", "daemon-reload"},
		},
		{name: "fstab", from: web, to: web.with(files{"/etc/fstab": "x"}), units: running, want: []string{"daemon-reload"}},
		{name: "a generator", from: web, to: web.with(files{"/usr/lib/systemd/system-generators/x": "x"}), units: running, want: []string{"daemon-reload"}},
		{
			name: "sysctl.d", from: web, to: web.with(files{"/usr/lib/sysctl.d/x.conf": "x"}), units: []systemd.LoadedUnit{runs("systemd-sysctl.service", "/usr/lib/systemd/systemd-sysctl", nil)},
			want: []string{"restart systemd-sysctl.service"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := plan(t, c.from, c.to, func(in *Input) {
				in.Units = c.units
				if c.set != nil {
					c.set(in)
				}
			})
			if diff := cmp.Diff(c.want, p.words()); diff != "" {
				t.Errorf("%s\n%+v", diff, p)
			}
		})
	}
}

func local(path string) func(*Input) {
	return func(in *Input) { in.Local = func(p string) bool { return p == path } }
}

func TestUnitsThatNobodyTouches(t *testing.T) {
	for unit, touched := range map[string]bool{
		"powernode-agent.service": false, "dbus.service": false, "dbus-broker.service": false, "dbus.socket": false, "systemd-journald.service": false, "systemd-journald-dev-log.socket": false,
		"systemd-udevd.service": false, "systemd-udevd-control.socket": false, "systemd-logind.service": false, "user@1000.service": false, "session-1.scope": false, "init.scope": false,
		"getty@tty1.service": false, "-.mount": false, "dev-sda.swap": false, "system.slice": false, "systemd-remount-fs.service": false, "networking.service": false, "systemd-networkd.socket": false,
		"powernode-web_app.service": true, "nginx.service": true, "web.socket": true, "x.timer": true, "systemd-timesyncd.service": true, "systemd-journal-upload.service": true, "ssh.service": true,
	} {
		if (hands(unit) == "") != touched {
			t.Errorf("%s: %q", unit, hands(unit))
		}
	}
	units := []systemd.LoadedUnit{
		runs("dbus.service", "/usr/bin/dbus-daemon", reloads),
		runs("audit.service", "/usr/sbin/audit", func(u *systemd.LoadedUnit) { u.RefuseStop = true }), active("init.scope"),
	}
	from := base.with(files{"/usr/bin/dbus-daemon": "1", "/usr/sbin/audit": "1"})
	to := from.with(files{"/usr/bin/dbus-daemon": "2", "/usr/sbin/audit": "2", "/usr/share/dbus-1/system.d/x.conf": "x"})
	p := plan(t, from, to, func(in *Input) {
		in.Units = units
		in.Processes = []Process{
			{PID: 1, Name: "systemd", Unit: "init.scope", Uses: []Use{{"/usr/lib/systemd/systemd", AsProgram}}},
			{PID: 9, Name: "bash", Unit: "session-1.scope", Uses: []Use{{"/usr/bin/bash", AsProgram}}},
		}
	})
	want := []string{
		"reload dbus.service",
		"later dbus.service: /usr/bin/dbus-daemon, which it runs, is changed, and every program on the message bus would lose it",
		"later audit.service: /usr/sbin/audit, which it runs, is changed, and systemd lets nobody stop it",
		"later init.scope: systemd (1) uses /usr/lib/systemd/systemd, which differs, and the first process lasts as long as the machine runs",
		"later session-1.scope: bash (9) uses /usr/bin/bash, which differs, and somebody else started it",
	}
	if diff := cmp.Diff(want, p.words()); diff != "" {
		t.Error(diff)
	}
}

func TestConfiguration(t *testing.T) {
	owners := map[string]string{
		"/usr/lib/systemd/system/sysinit.target": "base", "/usr/lib/systemd/system/ssh.service": "base", "/etc/ssh/sshd_config": "base", "/etc/motd": "base",
		webUnit: "web", "/etc/web/web.conf": "web", "/etc/web/site.conf": "site", "/etc/other/x": "site", "/etc/web.extra": "web", "/etc/cron.d/web": "web", "/etc/cron.d/site": "site",
	}
	units := []systemd.LoadedUnit{
		runs("web.service", "/usr/sbin/webd", reloads), runs("ssh.service", "/usr/sbin/sshd", nil),
		runs("odd.service", "/usr/bin/odd", func(u *systemd.LoadedUnit) { u.Arguments = []string{"odd", "--config=/etc/strange.ini"} }),
		runs("env.service", "/usr/bin/env", func(u *systemd.LoadedUnit) { u.EnvironmentFiles = []string{"/etc/environment.d/*.conf"} }),
	}
	from := web.with(files{"/etc/ssh/sshd_config": "1", "/usr/lib/systemd/system/ssh.service": "[Service]\n", "/etc/motd": "1", "/usr/lib/systemd/system/odd.service": "[Service]\n", "/usr/lib/systemd/system/env.service": "[Service]\n"})
	for path, want := range map[string][]string{
		"/etc/web/web.conf": {"reload web.service"}, "/etc/web/site.conf": {"reload web.service"}, "/etc/other/x": nil, "/etc/web.extra": {"reload web.service"},
		"/etc/ssh/sshd_config": {"restart ssh.service"}, "/etc/motd": nil, "/etc/default/ssh": {"restart ssh.service"}, "/etc/webd.conf": {"reload web.service"},
		"/etc/strange.ini": {"restart odd.service"}, "/etc/strange.ini.bak": nil, "/etc/environment.d/a.conf": {"restart env.service"}, "/etc/cron.d/site": nil,
	} {
		p := plan(t, from, from.with(files{path: "2"}), func(in *Input) {
			in.Units, in.Owner = units, func(path string) string { return owners[path] }
		})
		if diff := cmp.Diff(want, p.words()); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
	// A restart reads it again, too.
	p := plan(t, from, from.with(files{"/etc/web/web.conf": "2", webUnit: "[Service]\nNice=1\n"}), func(in *Input) {
		in.Units, in.Owner = units, func(path string) string { return owners[path] }
	})
	if diff := cmp.Diff([]string{"daemon-reload", "restart web.service"}, p.words()); diff != "" {
		t.Error(diff)
	}
}

func TestOtherReasons(t *testing.T) {
	units := []systemd.LoadedUnit{runs("web.service", "/usr/sbin/web", nil), runs("gen.service", "/x", nil), runs("gone.service", "/x", nil), runs("same.service", "/x", nil)}
	p := plan(t, web, web.with(files{"/usr/lib/x/libx.so": "2"}), func(in *Input) {
		in.Units = units
		in.Processes = []Process{{PID: 7, Name: "web", Unit: "web.service", Uses: []Use{{"/usr/lib/x/libx.so", AsMapped}}}, {PID: 8, Name: "sh"}}
		in.Held = []Held{{"web.service", "ProtectSystem= keeps the old /usr", nil}, {"gen.service", "ProtectSystem= keeps the old /usr", []string{"usr"}}}
		in.Generated = []GeneratedUnit{
			{Name: "gone.service", From: "[Service]\nNice=1"},
			{Name: "same.service", From: "[Service]\nNice=1", To: "[Unit]\nAfter=x\n[Service]\nNice=1"},
			{Name: "new.service", To: "[Service]", Start: true},
			{Name: "manual.service", To: "[Service]"},
		}
	})
	if diff := cmp.Diff([]string{"stop gone.service", "daemon-reload", "restart web.service", "restart gen.service", "start new.service"}, p.words()); diff != "" {
		t.Error(diff)
	}
	if why := p.Restart[0].Because; len(why) != 2 || !strings.Contains(why[0], "web (7) uses /usr/lib/x/libx.so") {
		t.Errorf("%q", why)
	}
	back := p.Back()
	if diff := cmp.Diff([]string{"stop new.service", "daemon-reload", "restart web.service", "restart gen.service", "start gone.service"}, back.words()); diff != "" {
		t.Error(diff)
	}
}

func TestReasonsAreCounted(t *testing.T) {
	var r reasons
	for _, s := range []string{"a", "b", "b", "c", "d", "e"} {
		r.add("%s", s)
	}
	if diff := cmp.Diff([]string{"a", "b", "c", "and 2 more"}, r.list()); diff != "" {
		t.Error(diff)
	}
}

func TestParseUnit(t *testing.T) {
	got := parseUnit("x=outside\n[Service]\n# comment\nExecStart = /bin/a \\\n  # amid\n  b\n;c\nrubbish\n[X-Own]\ny=z\n[Unit]\nAfter=b\n")
	want := []setting{{"", "x", "outside"}, {"Service", "ExecStart", "/bin/a  b"}, {"X-Own", "y", "z"}, {"Unit", "After", "b"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(setting{})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"a-b-c@x.service", "a-b-c@.service", "a-b-.service", "a-.service"}, dropInNames("a-b-c@x.service")); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseUnit(f *testing.F) {
	f.Add("[Service]\nExecStart=/bin/a \\\n b\n")
	f.Add("\\\n[\n=\n")
	f.Fuzz(func(_ *testing.T, text string) { weighty(parseUnit(text)) })
}

// TestHeldByNothing: a service that goes on with the old tree isn't restarted for what it never looks at.
func TestHeldByNothing(t *testing.T) {
	units := []systemd.LoadedUnit{runs("web.service", "/usr/sbin/web", nil)}
	held := func(in *Input) {
		in.Units, in.Held = units, []Held{{"web.service", "it keeps the old /usr", []string{"usr"}}}
	}
	manifest := "/" + module.ManifestPath("other")
	p := plan(t, web, web.with(files{manifest: "1", "/srv/page": "2"}), held)
	later := "later web.service: it keeps the old /usr, in which manifests of modules differ and nothing else"
	if diff := cmp.Diff([]string{later}, p.words()); diff != "" {
		t.Error(diff)
	}
	p = plan(t, web, web.with(files{manifest: "1", "/usr/share/other": "2"}), held)
	if diff := cmp.Diff([]string{"restart web.service"}, p.words()); diff != "" {
		t.Error(diff)
	}
}

// TestStepsNameTheFile that systemd takes, so that it is known whose unit it is.
func TestStepsNameTheFile(t *testing.T) {
	const old, local = "/lib/systemd/system/", "/usr/local/lib/systemd/system/"
	unmerged := files{"/lib": "/", old + "multi-user.target": "[Unit]\n", "/usr/lib/systemd/system/multi-user.target": ""}
	link := func(dir, unit string) files { return files{dir + "multi-user.target.wants/" + unit: "-> ../" + unit} }
	target := []systemd.LoadedUnit{active("multi-user.target")}
	for _, c := range []struct {
		name      string
		from, to  files
		unit, own string
		set       func(*Input)
	}{
		{name: "merged", from: base, to: web, unit: "web.service", own: webUnit},
		{name: "without merged /usr", from: base.with(unmerged), to: base.with(unmerged).with(files{old + "web.service": webText}).with(link(old, "web.service")), unit: "web.service", own: old + "web.service"},
		{name: "below /usr/local", from: base, to: web.with(files{local + "web.service": webText}), unit: "web.service", own: local + "web.service"},
		{
			name: "of a template", from: base, to: base.with(files{"/etc/systemd/system/w@.service": webText}).with(link("/etc/systemd/system/", "w@1.service")),
			unit: "w@1.service", own: "/etc/systemd/system/w@.service",
		},
		{name: "that goes away", from: web, to: base, unit: "web.service", own: webUnit, set: func(in *Input) { in.Units = append(target, runs("web.service", "/usr/sbin/web", nil)) }},
		{
			name: "of the administrator's own", from: web, to: web.with(files{"/usr/sbin/web": "web 2"}), unit: "web.service",
			set: func(in *Input) {
				in.Units = []systemd.LoadedUnit{runs("web.service", "/usr/sbin/web", func(u *systemd.LoadedUnit) { u.Fragment = "/run/systemd/system/web.service" })}
			},
		},
	} {
		p := plan(t, c.from, c.to, func(in *Input) {
			in.Units = target
			if c.set != nil {
				c.set(in)
			}
		})
		var steps []UnitStep
		for _, list := range [][]UnitStep{p.Stop, p.Restart, p.Start} {
			steps = append(steps, list...)
		}
		if len(steps) != 1 || steps[0].Unit != c.unit || steps[0].File != c.own {
			t.Errorf("%s: %+v", c.name, steps)
		}
	}
}
