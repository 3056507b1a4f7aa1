package module

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fault"
)

const complete = `
schema_version: 1
name: web-server
display_name: Web server
description: |
  Two lines,
  and	a tab.
license: Apache-2.0
mask: [/var/log/**]
file_spec:
  - /etc/nginx/**
protected_spec: [/etc/nginx/nginx.conf]
dependency_spec: ["/srv/www/**"]
package_spec: [nginx, "libc6=2.36-9+deb12u10", g++]
dependencies:
  requires: ["powernode/system-base@^1.0", powernode/dns, "powernode/x@*"]
  provides: [http]
init: {start: nginx, stop: nginx -s quit, restart: ""}
reboot_required: true
security:
  capabilities: [CAP_NET_BIND_SERVICE]
  selinux_profile: null
  seccomp_profile: web
  egress_allow: [example.org, "example.org:443", 192.0.2.1, "[2001:DB8::1]:8443", "2001:db8::2"]
  user_namespace: true
skills: [a, 1, {b: [true, null, 1.5, 2026-01-02]}]
build:
  ubuntu_digest: null
  apt_snapshot: 20260415T000000Z
services:
  - name: web
    start_command: /usr/sbin/nginx -g 'daemon off;'
    user: www-data
    working_directory: /srv/www
    env: {LANG: C.UTF-8, EMPTY: ""}
    exposed_ports: [{port: 80}, {port: 443, protocol: udp, name: h3}]
    capabilities: [CAP_NET_BIND_SERVICE]
    health: {endpoint: /healthz}
    dependencies: [{service: cache}]
    metadata: {team: edge}
  - name: cache
    start_command: /usr/bin/cache
    restart_policy: on-failure
    health: {endpoint: "127.0.0.1:1", method: TCP, interval_seconds: 1, timeout_seconds: 2, initial_delay_seconds: 0}
`

func TestParseManifest(t *testing.T) {
	got, err := ParseManifest([]byte(complete))
	if err != nil {
		t.Fatal(err)
	}
	want := &Manifest{
		SchemaVersion: 1, Name: "web-server", DisplayName: "Web server", Description: "Two lines,\nand\ta tab.\n", License: "Apache-2.0",
		Mask: []string{"/var/log/**"}, FileSpec: []string{"/etc/nginx/**"}, ProtectedSpec: []string{"/etc/nginx/nginx.conf"},
		DependencySpec: []string{"/srv/www/**"}, PackageSpec: []string{"nginx", "libc6=2.36-9+deb12u10", "g++"},
		Dependencies: Dependencies{
			Requires: []Requirement{{"powernode", "system-base", "^1.0"}, {"powernode", "dns", ""}, {"powernode", "x", "*"}},
			Provides: []string{"http"},
		},
		Init: Init{Start: "nginx", Stop: "nginx -s quit"}, RebootRequired: true,
		Security: Security{
			Capabilities: []string{"CAP_NET_BIND_SERVICE"}, SeccompProfile: "web", UserNamespace: true,
			EgressAllow: []Endpoint{{"example.org", 0}, {"example.org", 443}, {"192.0.2.1", 0}, {"2001:db8::1", 8443}, {"2001:db8::2", 0}},
		},
		Skills: []any{"a", int64(1), map[string]any{"b": []any{true, nil, 1.5, "2026-01-02"}}},
		Build:  Build{APTSnapshot: "20260415T000000Z"},
		Services: []Service{{
			Name: "web", StartCommand: "/usr/sbin/nginx -g 'daemon off;'", RestartPolicy: RestartAlways, User: "www-data",
			WorkingDirectory: "/srv/www", Env: map[string]string{"LANG": "C.UTF-8", "EMPTY": ""},
			ExposedPorts: []Port{{80, "tcp", ""}, {443, "udp", "h3"}}, Capabilities: []string{"CAP_NET_BIND_SERVICE"},
			Health:       &Health{"/healthz", "GET", 30, 5, 10},
			Dependencies: []ServiceDependency{{"cache", "requires_health"}}, Metadata: map[string]any{"team": "edge"},
		}, {
			Name: "cache", StartCommand: "/usr/bin/cache", RestartPolicy: RestartOnFailure, Health: &Health{"127.0.0.1:1", "TCP", 1, 2, 0},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := json.Marshal(got); err != nil {
		t.Error(err)
	}
}

func TestParseManifestRefused(t *testing.T) {
	head := "schema_version: 1\nname: x\n"
	service := head + "services:\n- name: a\n  start_command: b\n"
	tests := []struct{ name, doc, want string }{
		{"empty", "", "is empty"},
		{"comment only", "# nothing\n", "is empty"},
		{"not YAML", "a: [", "line 1"},
		{"a list", "- a\n", "want a mapping"},
		{"two documents", head + "---\n" + head, "first document"},
		{"no name", "schema_version: 1\n", "missing"},
		{"no version", "name: x\n", "missing"},
		{"later version", "schema_version: 2\nname: x\n", "version 2 is not known"},
		{"version as text", "schema_version: \"1\"\nname: x\n", "whole number"},
		{"unknown key", head + "descr: y\n", "line 3, column 1: descr: unknown key"},
		{"unknown key in a service", service + "  prt: 1\n", "line 6, column 3: services[0].prt: unknown key"},
		{"key twice", head + "name: y\n", "name: the key is there twice"},
		{"key that is no string", head + "1: y\n", "want a string as the key"},
		{"merge key", head + "<<: {license: x}\n", "want a string as the key"},
		{"anchor", head + "mask: &a [/x]\n", "anchors"},
		{"alias", head + "mask: &a [/x]\nfile_spec: *a\n", "anchors"},
		{"tag", head + "license: !!str 5\n", "tags"},
		{"number for text", head + "license: 5\n", "want a string"},
		{"null for text", head + "license:\n", "got nothing"},
		{"text for bool", head + "reboot_required: \"true\"\n", "true or false"},
		{"yes for bool", head + "reboot_required: yes\n", "true or false"},
		{"bad name", "schema_version: 1\nname: X\n", "module name"},
		{"control character in text", head + "description: \"a\\x1b[31m\"\n", "control"},
		{"escape in a key", head + "\"a\\x1b\\n\": 1\n", `a\x1b\n: unknown key`},
		{"newline in display_name", head + "display_name: \"a\\nb\"\n", "line breaks"},
		{"long display_name", head + "display_name: " + strings.Repeat("a", 201) + "\n", "at most 200"},
		{"bad glob", head + "mask: [/a/../b]\n", "mask[0]: glob"},
		{"glob twice", head + "mask: [/a, /a]\n", "listed twice"},
		{"spec that is no list", head + "mask: /a\n", "want a list"},
		{"option as a package", head + "package_spec: [\"-o=x\"]\n", "wrong form"},
		{"removal as a package", head + "package_spec: [nginx-]\n", "wrong form"},
		{"file as a package", head + "package_spec: [./x.deb]\n", "wrong form"},
		{"newline in a package", head + "package_spec: [\"nginx\\n\"]\n", "line breaks"},
		{"requirement without an owner", head + "dependencies: {requires: [base]}\n", "wrong form"},
		{"requirement with a bad constraint", head + "dependencies: {requires: [\"a/b@>=1\"]}\n", "wrong form"},
		{"requirement of a bad name", head + "dependencies: {requires: [\"a/1b\"]}\n", "module name"},
		{"unknown capability", head + "security: {capabilities: [CAP_NET_BIND]}\n", "not a capability"},
		{"capability without a prefix", head + "security: {capabilities: [CHOWN]}\n", "not a capability"},
		{"privileged and restricted", head + "security: {privileged: true, seccomp_profile: a}\n", "lifts"},
		{"egress port", head + "security: {egress_allow: [\"a:0\"]}\n", "port"},
		{"egress signed port", head + "security: {egress_allow: [\"a:+5\"]}\n", "port"},
		{"egress host", head + "security: {egress_allow: [\"a b\"]}\n", "neither"},
		{"egress zone", head + "security: {egress_allow: [\"fe80::1%eth0\"]}\n", "neither"},
		{"egress brackets", head + "security: {egress_allow: [\"[192.0.2.1]:5\"]}\n", "brackets"},
		{"digest", head + "build: {ubuntu_digest: \"sha256:00\"}\n", "wrong form"},
		{"snapshot", head + "build: {apt_snapshot: 2026-04-15}\n", "build.apt_snapshot: want a string"},
		{"service without a command", head + "services: [{name: a}]\n", "start_command is missing"},
		{"service with a path as its name", head + "services: [{name: ../a, start_command: b}]\n", "wrong form"},
		{"service twice", service + "- name: a\n  start_command: c\n", "used twice"},
		{"newline in a command", service + "  stop_command: |\n    a\n    b\n", "line breaks"},
		{"newline in a user", service + "  user: \"a\\nExecStartPre=/x\"\n", "line breaks"},
		{"user", service + "  user: 0\n", "want a string"},
		{"user with a slash", service + "  user: a/b\n", "wrong form"},
		{"relative directory", service + "  working_directory: srv\n", "not a directory"},
		{"directory with dots", service + "  working_directory: /srv/../etc\n", "not a directory"},
		{"environment name", service + "  env: {\"A=B\": c}\n", "environment variable"},
		{"environment value", service + "  env: {A: \"b\\nc\"}\n", "line breaks"},
		{"environment value that is a number", service + "  env: {A: 1}\n", "want a string"},
		{"restart policy", service + "  restart_policy: sometimes\n", "not allowed here"},
		{"port", service + "  exposed_ports: [{port: 65536}]\n", "range"},
		{"no port", service + "  exposed_ports: [{name: a}]\n", "port is missing"},
		{"protocol", service + "  exposed_ports: [{port: 1, protocol: icmp}]\n", "not allowed here"},
		{"health interval", service + "  health: {interval_seconds: 0}\n", "range"},
		{"health method", service + "  health: {method: http_get}\n", "not allowed here"},
		{"dependency on nothing", service + "  dependencies: [{service: b}]\n", "no service \"b\""},
		{"dependency kind", service + "  dependencies: [{service: a, kind: x}]\n", "not allowed here"},
		{"dependency on itself", service + "  dependencies: [{service: a}]\n", "a -> a"},
		{"dependency cycle", service + "  dependencies: [{service: b}]\n- name: b\n  start_command: x\n  dependencies: [{service: a}]\n", "a -> b -> a"},
		{"metadata", service + "  metadata: [a]\n", "want a mapping"},
		{"infinity", service + "  metadata: {a: .inf}\n", "passed on"},
		{"binary", service + "  metadata: {a: 99999999999999999999999}\n", ""},
		{"too long", strings.Repeat("#", ManifestMax+1), "at most"},
		{"too many services", head + "services:\n" + strings.Repeat("- {}\n", servicesMax+1), "65 items"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m, err := ParseManifest([]byte(test.doc))
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				t.Fatalf("accepted: %+v", m)
			}
			if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Input {
				t.Errorf("kind %s, area %d", fault.KindOf(err), fault.AreaOf(err))
			}
			if text := err.Error(); !strings.Contains(text, test.want) || strings.ContainsAny(text, "\n\x1b") {
				t.Errorf("got %q, want %q in it", text, test.want)
			}
		})
	}
}

// The manifests that the repository ships as examples are valid.
func TestExamples(t *testing.T) {
	paths, err := filepath.Glob("../../examples/modules/*/manifest.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal("no examples", err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		m, err := ParseManifest(b)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		} else if m.Name != filepath.Base(filepath.Dir(path)) {
			t.Errorf("%s holds the module %s", path, m.Name)
		}
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "system-base": true, "a1": true, strings.Repeat("a", 64): true,
		"": false, "1a": false, "-a": false, "a-": false, "A": false, "a_b": false, "a/b": false, "..": false, "ä": false, strings.Repeat("a", 65): false,
	} {
		if got := CheckName(name) == nil; got != ok {
			t.Errorf("CheckName(%q): %t", name, got)
		}
	}
	for version, ok := range map[string]bool{
		"1": true, "1.2.3": true, "2.36-9+deb12u10": true, "1~rc1^git_x": true, "v1": true,
		"": false, "-1": false, ".1": false, "1:2": false, "1/2": false, "1 2": false, "1\n": false, strings.Repeat("1", 129): false,
	} {
		if got := CheckVersion(version) == nil; got != ok {
			t.Errorf("CheckVersion(%q): %t", version, got)
		}
	}
	if got := VersionTag("1~rc1+b^c"); got != "1_rc1_b_c" {
		t.Error(got)
	}
	if got := ManifestPath("nginx"); got != "usr/lib/powernode/modules/nginx/manifest.yaml" {
		t.Error(got)
	}
}

func TestRank(t *testing.T) {
	high, low, tie := Rank{EffectivePriority(3, 5), "b"}, Rank{1, "a"}, Rank{3005, "c"}
	if high.Compare(low) >= 0 || low.Compare(high) <= 0 || high.Compare(tie) >= 0 || high.Compare(high) != 0 {
		t.Error("the order is wrong")
	}
	if got := high.String(); got != "b (priority 3005)" {
		t.Error(got)
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(complete))
	f.Add([]byte("schema_version: 1\nname: x\nskills: [{a: [1, .inf, ~, 0x1F]}]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			if fault.KindOf(err) != fault.Refuse || strings.ContainsAny(err.Error(), "\x1b\x00") {
				t.Fatal(err)
			}
			return
		}
		if _, err := json.Marshal(m); err != nil {
			t.Fatal(err)
		}
		for _, s := range m.Services {
			if hasControl(s.Name + s.StartCommand + s.StopCommand + s.User + s.WorkingDirectory) {
				t.Fatalf("control characters in %+v", s)
			}
		}
	})
}
