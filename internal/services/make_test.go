package services

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/oracle"
)

var update = flag.Bool("update", false, "write the golden files")

const agentPath = "/run/powernode/bin/powernode-agent"

func parse(t testing.TB, text string) *module.Manifest {
	t.Helper()
	m, err := module.ParseManifest([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func moduleOf(t testing.TB, text string) Module {
	t.Helper()
	m := parse(t, text)
	return Module{Name: m.Name, Version: "1.0.0", Manifest: m}
}

const shop = `
schema_version: 1
name: shop
security:
  capabilities: [CAP_NET_BIND_SERVICE, CAP_KILL]
  egress_allow: [192.0.2.7, "payments.example.org:443", "[2001:db8::1]:5432"]
services:
  - name: web
    start_command: /usr/sbin/webd --root '/srv/100% $HOME' "${GREETING}"
    stop_command: /bin/kill -TERM $MAINPID
    user: www-data
    working_directory: /srv/www
    env: {GREETING: "say \"hi\" \\ 5%", LANG: C.UTF-8}
    exposed_ports: [{port: 80}, {port: 443}]
    capabilities: [CAP_NET_BIND_SERVICE]
    health: {endpoint: /healthz, interval_seconds: 10}
    dependencies: [{service: db}, {service: cache, kind: start_before}, {service: stats, kind: softdep}]
  - name: db
    start_command: /usr/bin/db
    restart_policy: on-failure
    health: {method: TCP, endpoint: "5432", initial_delay_seconds: 2}
  - name: cache
    start_command: cached --port 1
    restart_policy: never
    user: cache
    health: {method: EXEC, endpoint: "/usr/bin/cachectl ping"}
  - name: stats
    start_command: /usr/bin/statsd
`

const legacy = `
schema_version: 1
name: chrony
init:
  start: test -e /run/x || chronyd; echo "50%" $HOME
  stop: chronyc shutdown
  restart: chronyc reload
`

func TestMakeGolden(t *testing.T) {
	made, err := Make(moduleOf(t, shop), Node{Agent: agentPath})
	if err != nil {
		t.Fatal(err)
	}
	old, err := Make(moduleOf(t, legacy), Node{Agent: agentPath, Privileged: []string{"chrony"}})
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, s := range made.Services {
		order = append(order, s.Name)
	}
	if diff := cmp.Diff([]string{"db", "cache", "stats", "web"}, order); diff != "" {
		t.Error(diff)
	}
	var names []string
	for _, u := range append(made.Units, old.Units...) {
		file := filepath.Join("testdata", u.Name)
		names = append(names, u.Name)
		if UnitModule(u.Name) != u.Module {
			t.Errorf("%s isn't known again as one of %s", u.Name, u.Module)
		}
		if *update {
			if err := os.WriteFile(file, u.Text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(u.Text)); diff != "" {
			t.Errorf("%s:\n%s", u.Name, diff)
		}
	}
	have, err := filepath.Glob("testdata/powernode-*")
	if err != nil || len(have) != len(names) {
		t.Errorf("%d golden files for %d units %v", len(have), len(names), err)
	}
	if len(made.Remarks) != 2 {
		t.Errorf("%d remarks: %q", len(made.Remarks), made.Remarks)
	}
}

// TestSystemdTakesTheUnits has systemd itself read them, where it is installed.
func TestSystemdTakesTheUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		oracle.Missing(t, "systemd-analyze isn't installed; it is in the package systemd")
	}
	set := MakeAll([]Module{moduleOf(t, shop), moduleOf(t, legacy), moduleOf(t, everything)}, Node{Agent: "/bin/true", AppArmor: true, SELinux: true, Privileged: []string{"chrony"}})
	if len(set.Refused) > 0 {
		t.Fatalf("%+v", set.Refused)
	}
	dir := t.TempDir()
	var files []string
	for _, u := range set.Units() {
		// It insists that programs are there.
		text := string(u.Text)
		for _, program := range []string{"/usr/sbin/webd", "/usr/bin/db", "cached", "/usr/bin/cachectl", "/usr/bin/statsd", "/usr/bin/all"} {
			text = strings.ReplaceAll(text, "="+program+" ", "=/bin/true ")
			text = strings.ReplaceAll(text, "=-"+program+" ", "=-/bin/true ")
			text = strings.ReplaceAll(text, "="+program+"\n", "=/bin/true\n")
		}
		file := filepath.Join(dir, u.Name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	cmd := exec.CommandContext(t.Context(), analyze, append([]string{"verify", "--man=no"}, files...)...)
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "powernode-") || strings.Contains(line, dir) {
			t.Errorf("systemd-analyze: %s", line)
		}
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// everything names what the other examples don't.
const everything = `
schema_version: 1
name: all
security:
  apparmor_profile: usr.sbin.all
  selinux_profile: system_u:system_r:all_t:s0
  seccomp_profile: "@basic-io @file-system @process @signal @default"
  user_namespace: true
services:
  - name: s
    start_command: /usr/bin/all 'a;b' ';' '|' '*' '%i' '$X' '${X}' 'quo"te' 'back\slash' "tick's" 'ünï' -- @x !y
`

func TestSecurityScore(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		oracle.Missing(t, "systemd-analyze isn't installed; it is in the package systemd")
	}
	set := MakeAll([]Module{moduleOf(t, shop), moduleOf(t, legacy)}, Node{Agent: agentPath})
	if len(set.Modules) != 2 {
		t.Fatalf("%+v", set.Refused)
	}
	dir := t.TempDir()
	// Tenths of systemd's exposure level, of 100; a service without any of it has 96.
	most := map[Kind]string{KindService: "30", KindInit: "30", KindHealth: "30", KindReady: "30", KindEgress: "30"}
	for _, u := range set.Units() {
		if most[u.Kind] == "" {
			continue
		}
		file := filepath.Join(dir, u.Name)
		if err := os.WriteFile(file, u.Text, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=yes", "--no-pager", "--threshold="+most[u.Kind], file).CombinedOutput()
		if strings.Contains(string(out), "unrecognized option") {
			oracle.Missing(t, "this systemd-analyze is older than 250")
		}
		i := strings.LastIndex(string(out), "Overall exposure level")
		if err != nil || i < 0 {
			t.Errorf("%s: %v\n%s", u.Name, err, out)
			continue
		}
		t.Logf("%s: %s", u.Name, strings.TrimSpace(string(out[i:])))
	}
}

func TestRefused(t *testing.T) {
	head := "schema_version: 1\nname: m\n"
	service := head + "services:\n- name: a\n  start_command: /bin/a\n"
	tests := []struct{ name, manifest, want string }{
		{"shell in a command", head + "services:\n- {name: a, start_command: \"/bin/a | b\"}\n", "only to a shell"},
		{"redirection", head + "services:\n- {name: a, start_command: /bin/a >x}\n", "only to a shell"},
		{"variable that isn't there", head + "services:\n- {name: a, start_command: /bin/a $X}\n", "isn't in the service's env"},
		{"open quote", head + "services:\n- {name: a, start_command: \"/bin/a 'b\"}\n", "isn't closed"},
		{"relative program", head + "services:\n- {name: a, start_command: bin/a}\n", "not a program"},
		{"prefix", head + "services:\n- {name: a, start_command: +/bin/a}\n", "not a program"},
		{"prefix in quotes", head + "services:\n- {name: a, start_command: \"'!!/bin/a'\"}\n", "not a program"},
		{"program with a specifier", head + "services:\n- {name: a, start_command: /bin/%i}\n", "not a program"},
		{"program of a variable", head + "services:\n- {name: a, start_command: $P, env: {P: -/bin/a}}\n", "not a program"},
		{"directory with a specifier", service + "  working_directory: /srv/%i\n", "WorkingDirectory"},
		{"directory with a backslash", service + "  working_directory: /srv/x\\\n", "WorkingDirectory"},
		{"capability beyond the module's", service + "  capabilities: [CAP_LEASE]\nsecurity: {capabilities: [CAP_KILL]}\n", "doesn't allow"},
		{"privileged", service + "security: {privileged: true}\n", "trust policy"},
		{"AppArmor", service + "security: {apparmor_profile: x}\n", "without AppArmor"},
		{"SELinux", service + "security: {selinux_profile: \"a:b:c\"}\n", "without SELinux"},
		{"AppArmor with a prefix", service + "security: {apparmor_profile: -x}\n", "not the name"},
		{"seccomp file", service + "security: {seccomp_profile: /etc/x.json}\n", "isn't known"},
		{"seccomp group", service + "security: {seccomp_profile: \"@everything\"}\n", "isn't known"},
		{"names for an init", head + "init: {start: x}\nsecurity: {capabilities: [CAP_KILL], egress_allow: [example.org]}\n", "for services only"},
		{"health elsewhere", service + "  health: {endpoint: \"http://169.254.169.254/x\"}\n", "stays on the machine"},
		{"health without a port", service + "  health: {endpoint: /x}\n", "names no port"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Make(moduleOf(t, test.manifest), Node{Agent: agentPath})
			if err == nil || !strings.Contains(err.Error(), test.want) || fault.KindOf(err) != fault.Refuse {
				t.Errorf("want %q, got %v", test.want, err)
			}
		})
	}
}

func TestPrivilegedNeedsConsent(t *testing.T) {
	m := moduleOf(t, "schema_version: 1\nname: m\nsecurity: {privileged: true, egress_allow: [192.0.2.1]}\nservices:\n- {name: a, start_command: /bin/a}\n")
	if _, err := Make(m, Node{Agent: agentPath, Privileged: []string{"other"}}); fault.AreaOf(err) != fault.Policy {
		t.Errorf("%v", err)
	}
	made, err := Make(m, Node{Agent: agentPath, Privileged: []string{"m"}})
	if err != nil {
		t.Fatal(err)
	}
	text := string(made.Units[0].Text)
	if strings.Contains(text, "Capabilit") || strings.Contains(text, "NoNewPrivileges") || !strings.Contains(text, "IPAddressDeny=any") {
		t.Error(text)
	}
}

// TestProfilesMustBeLoaded: a live change refuses what would fail at its start; nothing is known at a boot.
func TestProfilesMustBeLoaded(t *testing.T) {
	m := moduleOf(t, "schema_version: 1\nname: m\nsecurity: {apparmor_profile: usr.sbin.m}\nservices:\n- {name: a, start_command: /bin/a}\n")
	for _, test := range []struct {
		loaded map[string]string
		want   string
	}{
		{nil, ""},
		{map[string]string{}, "usr.sbin.m isn't loaded"},
		{map[string]string{"usr.sbin": "enforce"}, "usr.sbin.m isn't loaded"},
		{map[string]string{"x": "enforce", "usr.sbin.m": "enforce"}, ""},
		{map[string]string{"usr.sbin.m": "unconfined"}, "confines nothing"},
	} {
		_, err := Make(m, Node{Agent: agentPath, AppArmor: true, Profiles: test.loaded})
		if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || fault.KindOf(err) != fault.Refuse) {
			t.Errorf("%v: %v", test.loaded, err)
		}
	}
}

func TestMakeAllGoesOn(t *testing.T) {
	bad := moduleOf(t, "schema_version: 1\nname: bad\nservices:\n- {name: a, start_command: a|b}\n")
	none := moduleOf(t, "schema_version: 1\nname: none\n")
	set := MakeAll([]Module{bad, none, moduleOf(t, legacy)}, Node{Agent: agentPath, Privileged: []string{"chrony"}})
	if len(set.Modules) != 1 || set.Modules[0].Module != "chrony" || len(set.Refused) != 1 || set.Refused[0].Module != "bad" || set.Refused[0].Hint == "" {
		t.Errorf("%+v", set)
	}
}

// TestNamesOfUnitsAreApart: what a hyphen in between would make the same.
func TestNamesOfUnitsAreApart(t *testing.T) {
	names := []string{
		unitName("a-b", "c", KindService), unitName("a", "b-c", KindService), unitName("a", "", KindInit), unitName("agent", "", KindInit),
		unitName("a", "init", KindService), unitName("a", "health", KindService), unitName("a", "b-c", KindHealth), unitName("a", "b-c-health", KindService),
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != 8 || slices.Contains(names, "powernode-agent.service") {
		t.Errorf("%q", names)
	}
	for _, foreign := range []string{"powernode-agent.service", "nginx.service", "powernode-a_b.service.d", "powernode-a_b.socket", "powernode-a_b.init.service", "-powernode-a_b.service", ""} {
		if m := UnitModule(foreign); m != "" {
			t.Errorf("%q is taken for a unit of %q", foreign, m)
		}
	}
}

func TestCycle(t *testing.T) {
	list := []module.Service{
		{Name: "a", Dependencies: []module.ServiceDependency{{Service: "b"}}},
		{Name: "b", Dependencies: []module.ServiceDependency{{Service: "c"}}},
		{Name: "c", Dependencies: []module.ServiceDependency{{Service: "b"}}},
	}
	if _, err := inOrder(list); err == nil || !strings.Contains(err.Error(), "b -> c -> b") {
		t.Errorf("%v", err)
	}
	if _, err := inOrder(list[:2]); err == nil || !strings.Contains(err.Error(), `"c"`) {
		t.Errorf("%v", err)
	}
}

// TestWhatSeparatesWords is the space alone.
func TestWhatSeparatesWords(t *testing.T) {
	if got, err := words(" a  'b c' ", nil); err != nil || !slices.Equal(got, []string{"a", "b c"}) {
		t.Errorf("%q, %v", got, err)
	}
	for _, line := range []string{"a\tb", "a '\t'", "a\nb"} {
		if got, err := words(line, nil); fault.KindOf(err) != fault.Refuse {
			t.Errorf("%q: %q, %v", line, got, err)
		}
	}
}
