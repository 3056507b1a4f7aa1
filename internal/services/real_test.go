package services

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/health/systemd/systemdtest"
	"github.com/powernode/powernode-agent/internal/oracle"
)

const realShop = `
schema_version: 1
name: shop
security:
  capabilities: [CAP_NET_BIND_SERVICE, CAP_KILL]
services:
  - name: db
    start_command: /bin/busybox httpd -f -p 127.0.0.1:8001 -h /srv/db
    restart_policy: on-failure
    health: {endpoint: "8001/ok", interval_seconds: 1, initial_delay_seconds: 1, timeout_seconds: 10}
  - name: web
    start_command: /bin/busybox httpd -f -p 80 -h /srv/db
    user: www-data
    capabilities: [CAP_NET_BIND_SERVICE]
    exposed_ports: [{port: 80}]
    health: {method: EXEC, endpoint: "/bin/busybox wget -q -O /dev/null http://127.0.0.1:80/ok", interval_seconds: 1, initial_delay_seconds: 1, timeout_seconds: 10}
    dependencies: [{service: db}]
  - name: words
    start_command: >-
      /bin/sh -c 'printf "<%s>" "$@" "$E" >/run/words; exec sleep inf' sh %i %%n '$HOME' '${E}' ';' 'quo"te' 'back\slash' "tick's" ünï '' -x
    env: {E: "a\"b\\c %t $HOME 'x'"}
    restart_policy: never
`

const realBroken = `
schema_version: 1
name: broken
services:
  - name: a
    start_command: /bin/sh -c 'echo the reason why; exit 3'
    restart_policy: never
  - name: b
    start_command: /bin/no-such-program
    restart_policy: never
`

const realLegacy = `
schema_version: 1
name: old
init:
  start: sleep inf & echo "100% $((1+1)) %i" >/run/old
  stop: rm /run/old
  restart: echo again >/run/old
`

const realEgress = `
schema_version: 1
name: out
security: {egress_allow: [192.0.2.1, "allowed.test:443"]}
services:
  - name: a
    start_command: >-
      /bin/bash -c 'for i in 1 2 3; do if echo x 2>/dev/null >/dev/udp/192.0.2.$i/9; then echo "$i yes"; else echo "$i no"; fi; done >/run/out.new; mv /run/out.new /run/out; exec sleep inf'
`

// TestRealSystemd has a real systemd run services, with the real agent as their helper.
func TestRealSystemd(t *testing.T) {
	if !systemdtest.Inside(t, func() map[string]string { return map[string]string{agentPath: buildAgent(t)} }) {
		return
	}
	if err := os.MkdirAll("/srv/db", 0o755); err != nil {
		t.Fatal(err)
	}
	c := Control{Run: "/run", Logs: Journal, Within: time.Minute}
	c.Systemd = systemd.Manager{}
	t.Run("health", func(t *testing.T) { realHealth(t, c) })
	t.Run("sandbox", func(t *testing.T) { realSandbox(t, c) })
	t.Run("failure", func(t *testing.T) { realFailure(t, c) })
	t.Run("legacy", func(t *testing.T) { realInit(t, c) })
	t.Run("root without consent", func(t *testing.T) { realHeld(t, c) })
	t.Run("egress", func(t *testing.T) { realNames(t, c) })
	t.Run("gone", func(t *testing.T) { realGone(t, c) })
}

func buildAgent(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "agent")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", out, "./cmd/powernode-agent")
	cmd.Dir = oracle.Root(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	return out
}

// placeAll brings the system to these modules. What then doesn't start is for the caller to see.
func placeAll(t *testing.T, manifests ...string) {
	t.Helper()
	if _, _, err := Apply(t.Context(), systemd.Manager{}, "/run", setOf(t, manifests...), 4*time.Second); err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, c Control, name string, a Action) Report {
	t.Helper()
	r, err := c.Do(t.Context(), name, a)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// await waits until something is so, by events of another process that nobody tells of.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for !is() {
		select {
		case <-ctx.Done():
			out, _ := exec.CommandContext(t.Context(), "systemctl", "--no-pager", "list-units", "--all", "powernode-*").CombinedOutput()
			log, _ := exec.CommandContext(t.Context(), "journalctl", "--no-pager", "-n", "60").CombinedOutput()
			t.Fatalf("%s: not so\n%s\n%s", what, out, log)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func healthOf(unit string) Health {
	h, err := ReadHealth("/run", unit)
	if err != nil {
		return Health{}
	}
	return h
}

func realHealth(t *testing.T, c Control) {
	placeAll(t, realShop)
	db, web := "powernode-shop_db.service", "powernode-shop_web.service"
	// Without good health of db, web doesn't start.
	c.Within = 4 * time.Second
	r := do(t, c, "shop", ActionStart)
	if r.OK || r.Services[0].Active != "active" || r.Services[1].Active != "inactive" {
		t.Fatalf("%+v", r)
	}
	if err := os.WriteFile("/srv/db/ok", []byte("ok\n"), 0o644); err != nil { //nolint:gosec // a web server's
		t.Fatal(err)
	}
	await(t, "db is healthy", func() bool { return healthOf(db).State == HealthGood })
	await(t, "web comes up by itself, healthy by its command", func() bool { return healthOf(web).State == HealthGood })
	r = do(t, c, "shop", ActionStatus)
	if !r.OK || r.Services[1].Health == nil || r.Services[1].MainPID == 0 {
		t.Errorf("%+v", r)
	}
	before := healthOf(db)
	if err := os.Remove("/srv/db/ok"); err != nil {
		t.Fatal(err)
	}
	await(t, "db is restarted for its health", func() bool { return healthOf(db).Restarts > before.Restarts })
	if err := os.WriteFile("/srv/db/ok", []byte("ok\n"), 0o644); err != nil { //nolint:gosec // a web server's
		t.Fatal(err)
	}
	await(t, "both are well again", func() bool { return healthOf(db).State == HealthGood && healthOf(web).State == HealthGood })
	if now := healthOf(db); now.Invocation == before.Invocation {
		t.Error("it wasn't restarted")
	}
	// What was told of health is known by their units, too.
	await(t, "no check is failed any more", func() bool {
		s, err := (systemd.Manager{}).System(t.Context())
		return err == nil && s.State == "running"
	})
}

func realSandbox(t *testing.T, c Control) {
	r := do(t, c, "shop", ActionStatus)
	status, err := os.ReadFile(filepath.Join("/proc", pid(r.Services[1].MainPID), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"CapBnd:\t0000000000000400", "CapAmb:\t0000000000000400", "CapEff:\t0000000000000400", "NoNewPrivs:\t1", "Seccomp:\t2", "Uid:\t33\t33\t33\t33"} {
		if !strings.Contains(string(status), line+"\n") {
			t.Errorf("web lacks %q:\n%s", line, status)
		}
	}
	words, err := os.ReadFile("/run/words")
	want := `<%i><%%n><$HOME><${E}><;><quo"te><back\slash><tick's><ünï><><-x><a"b\c %t $HOME 'x'>`
	if diff := cmp.Diff(want, string(words)); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

func pid(n uint32) string {
	text, _ := json.Marshal(n)
	return string(text)
}

func realFailure(t *testing.T, c Control) {
	placeAll(t, realShop, realBroken)
	r := do(t, c, "broken", ActionStart)
	if r.OK || r.Services[1].Result != "failed" {
		t.Errorf("%+v", r)
	}
	await(t, "the first one has ended", func() bool { r = do(t, c, "broken", ActionStatus); return r.Services[0].Active == "failed" })
	a := r.Services[0]
	await(t, "its log says why", func() bool {
		a = do(t, c, "broken", ActionStatus).Services[0]
		return strings.Contains(strings.Join(a.Log, "\n"), "the reason why")
	})
	if a.Why != "exit-code" || len(a.Log) > 10 {
		t.Errorf("%+v", a)
	}
}

func realInit(t *testing.T, c Control) {
	placeAll(t, realShop, realLegacy)
	said := func() string {
		text, err := os.ReadFile("/run/old")
		if err != nil {
			return err.Error()
		}
		return strings.TrimSpace(string(text))
	}
	if r := do(t, c, "old", ActionStart); !r.OK || r.Services[0].Sub != "exited" || said() != "100% 2 %i" {
		t.Errorf("%+v, %q", r, said())
	}
	if r := do(t, c, "old", ActionRestart); !r.OK || said() != "again" {
		t.Errorf("%+v, %q", r, said())
	}
	if r := do(t, c, "old", ActionStop); !r.OK || !strings.Contains(said(), "no such file") {
		t.Errorf("%+v, %q", r, said())
	}
}

// realHeld: root without the policy's consent has neither systemd start anything for it nor writes what root runs.
func realHeld(t *testing.T, c Control) {
	lines := `for f in /run/systemd/system/powernode-evil.service /run/systemd/transient/x /root/x /etc/x /usr/x; do if echo x >$f; then echo $f; fi; done >/run/NAME 2>/dev/null
		if systemctl daemon-reload; then echo systemctl; fi >>/run/NAME 2>/dev/null; grep -E "^(CapEff|CapBnd|NoNewPrivs)" /proc/self/status >>/run/NAME; if test -c /dev/null; then echo done >>/run/NAME; fi`
	lines = strings.NewReplacer("\n", "; ", "\t", "").Replace(lines)
	service, init := strings.ReplaceAll(lines, "NAME", "held-service"), strings.ReplaceAll(lines, "NAME", "held-init")
	placeAll(t, realShop,
		"schema_version: 1\nname: held-service\nservices:\n- name: a\n  restart_policy: never\n  start_command: >-\n    /bin/sh -c '"+service+"'\n",
		"schema_version: 1\nname: held-init\nsecurity: {seccomp_profile: default}\ninit:\n  start: >-\n    "+init+"\n")
	for _, name := range []string{"held-service", "held-init"} {
		do(t, c, name, ActionStart)
		var text []byte
		await(t, name+" has tried", func() bool { text, _ = os.ReadFile("/run/" + name); return strings.HasSuffix(string(text), "done\n") })
		want := "CapBnd:\t0000000000000000\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\ndone\n"
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		slices.Sort(lines)
		if got := strings.Join(lines, "\n") + "\n"; got != want {
			t.Errorf("%s could\n%s", name, text)
		}
	}
	// It is systemctl that can't, and not that there is none.
	if out, err := exec.CommandContext(t.Context(), "systemctl", "daemon-reload").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func realNames(t *testing.T, c Control) {
	for _, args := range [][]string{
		{"ip", "address", "add", "192.0.2.1/32", "dev", "lo"}, {"ip", "address", "add", "192.0.2.2/32", "dev", "lo"}, {"ip", "address", "add", "192.0.2.3/32", "dev", "lo"},
	} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %s", args, out)
		}
	}
	if err := os.WriteFile("/etc/hosts", []byte("127.0.0.1 localhost\n192.0.2.2 allowed.test\n"), 0o644); err != nil { //nolint:gosec // as it is
		t.Fatal(err)
	}
	var sinks net.ListenConfig
	sink, err := sinks.ListenPacket(t.Context(), "udp", ":9")
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	placeAll(t, realShop, realEgress)
	if r := do(t, c, "out", ActionStart); !r.OK {
		t.Fatalf("%+v", r)
	}
	await(t, "it tried all peers", func() bool { _, err := os.Stat("/run/out"); return err == nil })
	text, err := os.ReadFile("/run/out")
	if string(text) != "1 yes\n2 yes\n3 no\n" || err != nil {
		record, _ := os.ReadFile("/run/powernode/egress/powernode-out_a.service.json")
		t.Errorf("%q, %v\n%s", text, err, record)
	}
	// A unit of that name without names to look up doesn't inherit them.
	left := "/run/systemd/system.control/powernode-out_a.service.d/50-IPAddressAllow.conf"
	if _, err := os.Stat(left); err != nil {
		t.Errorf("systemd keeps what was set elsewhere: %v", err)
	}
	placeAll(t, realShop, strings.Replace(realEgress, `, "allowed.test:443"`, "", 1))
	if _, err := os.Stat(left); err == nil {
		t.Error("what was allowed by name counts on")
	}
}

func realGone(t *testing.T, c Control) {
	if r := do(t, c, "shop", ActionStop); !r.OK {
		t.Errorf("%+v", r)
	}
	placeAll(t)
	await(t, "no helper runs on", func() bool {
		out, err := exec.CommandContext(t.Context(), "systemctl", "--no-pager", "--plain", "--no-legend", "list-units", "--state=active,activating,failed", "powernode-*").Output()
		return err == nil && strings.TrimSpace(string(out)) == ""
	})
	if r := files(t, "/run/systemd/system"); len(r) > 0 {
		t.Errorf("%q", r)
	}
}
