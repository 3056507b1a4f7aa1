package aftercare

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPrograms(t *testing.T) {
	for _, c := range []struct {
		name  string
		from  files
		to    files
		local string
		want  []string
	}{
		{name: "nothing differs"},
		{name: "what calls for nothing", to: files{"/usr/bin/x": "x", "/usr/share/doc/x": "x", "/etc/x": "x"}},
		{name: "users", to: files{"/usr/lib/sysusers.d/x.conf": "u x"}, want: []string{"run /usr/bin/systemd-sysusers x.conf"}},
		{name: "users that go away stay", from: files{"/usr/lib/sysusers.d/x.conf": "u x"}},
		{
			name: "temporary files, those that came", from: files{"/usr/lib/tmpfiles.d/a.conf": "d /a", "/usr/lib/tmpfiles.d/b.conf": "d /b"},
			to:   files{"/usr/lib/tmpfiles.d/a.conf": "d /a", "/usr/lib/tmpfiles.d/b.conf": "d /c", "/etc/tmpfiles.d/c.conf": "d /d", "/usr/lib/tmpfiles.d/README": "x"},
			want: []string{"run /usr/bin/systemd-tmpfiles --create c.conf b.conf"},
		},
		{name: "hidden by a local change", to: files{"/usr/lib/sysusers.d/x.conf": "u x"}, local: "/usr/lib/sysusers.d/x.conf"},
		{
			name: "everything, in order", to: files{
				"/usr/lib/sysusers.d/x.conf": "u x", "/usr/lib/tmpfiles.d/x.conf": "d /x", "/usr/local/lib/libx.so.1": "x",
				"/usr/lib/modules/6.12.0/extra/x.ko.xz": "x", "/usr/lib/systemd/system/x.service": "[Service]\n",
			},
			want: []string{
				"run /usr/sbin/ldconfig", "run /usr/bin/systemd-sysusers x.conf", "run /usr/bin/systemd-tmpfiles --create x.conf", "run /usr/sbin/depmod 6.12.0", "daemon-reload",
			},
		},
		{
			name: "programs that aren't there", to: files{"/usr/bin/systemd-sysusers": "", "/usr/lib/sysusers.d/x.conf": "u x"},
			want: []string{"the root has no systemd-sysusers: what /usr/lib/sysusers.d/x.conf is added for isn't done"},
		},
		{name: "libraries that the loader finds", to: files{"/usr/lib/x86_64-linux-gnu/libx.so.1": "x", "/usr/lib/libx.so": "x", "/usr/lib/x/libx.so": "x"}},
		{name: "no library", to: files{"/usr/local/lib/x.py": "x", "/usr/local/lib/libx.a": "x"}},
		{name: "a library that only its cache knows", to: files{"/usr/local/lib/libx.so.1.2": "x"}, want: []string{"run /usr/sbin/ldconfig"}},
		{name: "one that goes away", from: files{"/usr/local/lib/libx.so.1.2": "x"}, want: []string{"run /usr/sbin/ldconfig"}},
		{
			name: "a directory for it to look into", to: files{"/etc/ld.so.conf.d/x.conf": "/opt/x/lib # x\n", "/opt/x/lib/libx.so.1": "x"},
			want: []string{"run /usr/sbin/ldconfig"},
		},
		{name: "configuration that includes itself", to: files{"/etc/ld.so.conf": "include ld.so.conf\n/opt/x\n", "/opt/x": "/"}, want: []string{"run /usr/sbin/ldconfig"}},
		{
			name: "a cache that hides the image's", to: files{"/etc/ld.so.cache": "x"}, local: "/etc/ld.so.cache", want: []string{"run /usr/sbin/ldconfig"},
		},
		{name: "a cache of the image", to: files{"/etc/ld.so.cache": "x"}},
		{name: "kernel modules of another kernel", to: files{"/usr/lib/modules/6.1.0/x.ko": "x"}},
		{
			name: "kernel modules with their index", to: files{"/usr/lib/modules/6.12.0/kernel/x.ko": "x", "/usr/lib/modules/6.12.0/modules.dep": "kernel/x.ko:\n"},
		},
		{
			name: "with a local index", to: files{"/usr/lib/modules/6.12.0/kernel/x.ko": "x", "/usr/lib/modules/6.12.0/modules.dep": "kernel/x.ko:\n"},
			local: "/usr/lib/modules/6.12.0/modules.dep", want: []string{"run /usr/sbin/depmod 6.12.0"},
		},
		{
			name: "with an index that lists others", to: files{"/usr/lib/modules/6.12.0/kernel/x.ko": "x", "/usr/lib/modules/6.12.0/modules.dep": "kernel/y.ko:\n"},
			want: []string{"run /usr/sbin/depmod 6.12.0"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := plan(t, base.with(c.from), base.with(c.to), func(in *Input) {
				in.Local = func(path string) bool { return path == c.local }
			})
			if diff := cmp.Diff(c.want, p.words()); diff != "" {
				t.Error(diff)
			}
			if want := len(c.want) == 0 || c.want[0][:8] == "the root"; p.Empty() != want {
				t.Errorf("empty: %t", p.Empty())
			}
		})
	}
}

func TestWithoutSystemdNoUnitIsTouched(t *testing.T) {
	p := plan(t, base, base.with(files{"/usr/lib/systemd/system/x.service": "[Service]\n", "/usr/lib/sysusers.d/x.conf": "u x"}), func(in *Input) { in.Systemd = false })
	if diff := cmp.Diff([]string{"run /usr/bin/systemd-sysusers x.conf"}, p.words()); diff != "" {
		t.Error(diff)
	}
}

func TestAtBoot(t *testing.T) {
	for _, c := range []struct {
		name string
		more files
		want []string
	}{
		{name: "nothing"},
		{name: "a library", more: files{"/usr/local/lib/libx.so.1": "x"}, want: []string{"/usr/sbin/ldconfig"}},
		{name: "no library", more: files{"/usr/local/lib/x": "x"}},
		{name: "with a cache", more: files{"/usr/local/lib/libx.so.1": "x", "/etc/ld.so.cache": "x"}},
		{name: "without the program", more: files{"/usr/local/lib/libx.so.1": "x", "/usr/sbin/ldconfig": ""}},
		{name: "modules", more: files{"/usr/lib/modules/6.12.0/x.ko": "x"}, want: []string{"/usr/sbin/depmod"}},
		{name: "with an index", more: files{"/usr/lib/modules/6.12.0/x.ko": "x", "/usr/lib/modules/6.12.0/modules.dep": "x.ko:"}},
	} {
		var got []string
		for _, p := range AtBoot(base.with(c.more).tree(), "6.12.0", nil) {
			got = append(got, p.Path)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestDerived(t *testing.T) {
	for name, want := range map[string]bool{
		"/etc/ld.so.cache": true, "/etc/ld.so.conf": false, "/etc/.updated": true, "/usr/lib/modules/6.12.0/modules.dep": true,
		"/usr/lib/modules/6.12.0/modules.dep.bin": true, "/lib/modules/6.12.0/modules.alias": true, "/usr/lib/modules/6.12.0/modules.builtin": false,
		"/usr/lib/modules/6.12.0/modules.builtin.bin": true, "/usr/lib/modules/6.12.0/modules.order": false, "/usr/lib/modules/6.12.0/x/modules.dep": false,
		"/opt/modules/6.12.0/modules.dep": false, "/usr/lib/modules/6.12.0/kernel": false,
	} {
		if Derived(name) != want {
			t.Errorf("%s: %t", name, !want)
		}
	}
}
