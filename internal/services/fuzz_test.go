package services

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/module"
)

// directives are all that a unit of ours may hold.
var directives = map[string][]string{
	"Unit":  strings.Fields("Description CollectMode Requires Wants After Before BindsTo PartOf"),
	"Timer": strings.Fields("OnActiveSec OnUnitInactiveSec AccuracySec"),
	"Service": strings.Fields(`Type User WorkingDirectory Environment ExecStart ExecStop ExecReload ExecStopPost Restart RestartSec RemainAfterExit
		TimeoutStartSec TimeoutStopSec RuntimeDirectory RuntimeDirectoryPreserve IPAddressDeny IPAddressAllow SystemCallFilter SystemCallErrorNumber
		CapabilityBoundingSet AmbientCapabilities NoNewPrivileges ProtectSystem ProtectHome PrivateTmp PrivateDevices PrivateUsers LockPersonality
		RestrictSUIDSGID SystemCallArchitectures ProtectKernelModules ProtectKernelLogs ProtectKernelTunables ProtectHostname ProtectControlGroups
		RestrictRealtime RestrictNamespaces InaccessiblePaths ReadOnlyPaths RestrictAddressFamilies MemoryDenyWriteExecute AppArmorProfile SELinuxContext`),
}

// repeated are the directives that a unit may hold more than once.
var repeated = strings.Fields("Requires Wants After Environment IPAddressAllow SystemCallFilter")

// readUnit reads a unit file as systemd.syntax(7) says, by a reader that has nothing in common with the writer. It returns
// "Section.Key" and the value of each directive, in order.
func readUnit(text string) ([][2]string, error) {
	var out [][2]string
	section, carried := "", ""
	for line := range strings.SplitSeq(text, "\n") {
		if carried == "" && (line == "" || line[0] == '#' || line[0] == ';') {
			continue
		}
		if strings.ContainsAny(line, "\r\x00") {
			return nil, fmt.Errorf("a line of %q ends elsewhere for systemd", line)
		}
		if strings.HasSuffix(line, `\`) {
			carried += strings.TrimSuffix(line, `\`) + " "
			continue
		}
		line, carried = carried+line, ""
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			section = line[1 : len(line)-1]
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("the line %q is nothing", line)
		}
		out = append(out, [2]string{section + "." + strings.TrimSpace(key), strings.TrimSpace(value)})
	}
	if carried != "" {
		return nil, fmt.Errorf("the last line goes on")
	}
	return out, nil
}

// unquote splits a command line as systemd does: quotes, C escapes, then specifiers and variables, of which none may be left.
func unquote(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	in, quoted := false, false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\':
			if i++; i == len(s) || s[i] != '\\' && s[i] != '"' {
				return nil, fmt.Errorf("an escape in %q", s)
			}
			word.WriteByte(s[i])
		case c == '%' || c == '$':
			if strings.HasPrefix(s[i:], "${"+mainPID+"}") {
				word.WriteString("${" + mainPID + "}")
				i += len("${"+mainPID+"}") - 1
				continue
			}
			if i++; i == len(s) || s[i] != c {
				return nil, fmt.Errorf("a specifier or a variable in %q", s)
			}
			word.WriteByte(c)
		case c == '"':
			quoted = !quoted
		case c == ' ' && !quoted:
			if in {
				words = append(words, word.String())
			}
			word.Reset()
			in = false
			continue
		case c == '\'' && !quoted:
			return nil, fmt.Errorf("a single quote in %q", s)
		case c == ';' && !quoted && (i+1 == len(s) || s[i+1] == ' ') && !in:
			return nil, fmt.Errorf("a second command in %q", s)
		default:
			word.WriteByte(c)
		}
		in = true
	}
	if quoted {
		return nil, fmt.Errorf("an open quote in %q", s)
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}

// checkUnit is the property: nothing but what a unit of ours may hold, whatever the fields were.
func checkUnit(u Unit) ([][2]string, error) {
	if UnitModule(u.Name) == "" || strings.ContainsAny(u.Name, "/\n\x00") {
		return nil, fmt.Errorf("the name %q", u.Name)
	}
	list, err := readUnit(string(u.Text))
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for _, d := range list {
		section, key, _ := strings.Cut(d[0], ".")
		if !slices.Contains(directives[section], key) {
			return nil, fmt.Errorf("%s=%s isn't ours", d[0], d[1])
		}
		if seen[d[0]] && !slices.Contains(repeated, key) {
			return nil, fmt.Errorf("%s is there twice", d[0])
		}
		seen[d[0]] = true
		if strings.HasPrefix(key, "Exec") {
			words, err := unquote(d[1])
			if err != nil {
				return nil, err
			}
			program := words[0]
			if u.Kind != KindService && u.Kind != KindInit {
				program = strings.TrimLeft(program, "-+")
			}
			if program == "" || strings.IndexByte("-@+!:|", program[0]) >= 0 {
				return nil, fmt.Errorf("a prefix: %s=%s", d[0], d[1])
			}
		}
	}
	return list, nil
}

// fields set one field each of a manifest that is right.
var fields = []func(m *module.Manifest, content string){
	func(m *module.Manifest, c string) { m.Name = c },
	func(m *module.Manifest, c string) { m.Services[0].Name = c },
	func(m *module.Manifest, c string) { m.Services[0].StartCommand = c },
	func(m *module.Manifest, c string) { m.Services[0].StartCommand = "/x " + c },
	func(m *module.Manifest, c string) { m.Services[0].StopCommand = c },
	func(m *module.Manifest, c string) { m.Services[0].RestartPolicy = module.RestartPolicy(c) },
	func(m *module.Manifest, c string) { m.Services[0].User = c },
	func(m *module.Manifest, c string) { m.Services[0].WorkingDirectory = c },
	func(m *module.Manifest, c string) { m.Services[0].Env = map[string]string{c: "x"} },
	func(m *module.Manifest, c string) { m.Services[0].Env = map[string]string{"E": c} },
	func(m *module.Manifest, c string) { m.Services[0].Capabilities = []string{c} },
	func(m *module.Manifest, c string) { m.Services[0].ExposedPorts[0].Name = c },
	func(m *module.Manifest, c string) { m.Services[0].ExposedPorts[0].Protocol = c },
	func(m *module.Manifest, c string) { m.Services[0].Health.Method = c },
	func(m *module.Manifest, c string) { m.Services[0].Health.Endpoint = c },
	func(m *module.Manifest, c string) { m.Services[1].Health.Endpoint = c },
	func(m *module.Manifest, c string) { m.Services[2].Health.Endpoint = c },
	func(m *module.Manifest, c string) { m.Services[0].Dependencies[0].Service = c },
	func(m *module.Manifest, c string) { m.Services[0].Dependencies[0].Kind = c },
	func(m *module.Manifest, c string) { m.Security.Capabilities = []string{c} },
	func(m *module.Manifest, c string) { m.Security.EgressAllow[0].Host = c },
	func(m *module.Manifest, c string) { m.Security.AppArmorProfile = c },
	func(m *module.Manifest, c string) { m.Security.SELinuxProfile = c },
	func(m *module.Manifest, c string) { m.Security.SeccompProfile = c },
	func(m *module.Manifest, c string) { m.Services, m.Init.Start = nil, c },
	func(m *module.Manifest, c string) { m.Services, m.Init.Stop = nil, c },
	func(m *module.Manifest, c string) { m.Services, m.Init.Restart = nil, c },
}

// FuzzMake gives any field of a manifest any content: what comes out is a unit of ours that means it, or nothing.
func FuzzMake(f *testing.F) {
	for field := range fields {
		for _, content := range []string{
			"x", "/x 'a b' $E", "/bin/kill $MAINPID", "x\nUser=root", "x\r[Install]", "x\\", "%i", "/%h", "-x", "+/x", "/x ; /y", "/x \"", "[Service]", "x\u2028y", "\ufffe", "\xff",
			"@mount @clock", "a:b:c", "CAP_CHOWN", "EXEC", "http://[::1]:1/%n\"", "::1", "softdep", "z", "x y", "--unit", "",
		} {
			f.Add(uint8(field), content)
		}
	}
	f.Fuzz(func(t *testing.T, field uint8, content string) {
		m := &module.Manifest{
			Name:     "m",
			Security: module.Security{EgressAllow: []module.Endpoint{{Host: "example.org"}, {Host: "192.0.2.1"}}, UserNamespace: true},
			Services: []module.Service{
				{
					Name: "a", StartCommand: "/a", StopCommand: "/b", User: "u", WorkingDirectory: "/srv", Env: map[string]string{"E": "v"},
					ExposedPorts: []module.Port{{Port: 80, Protocol: "tcp"}}, Health: &module.Health{Method: "GET", Endpoint: "/x", IntervalSeconds: 1, TimeoutSeconds: 1},
					Dependencies: []module.ServiceDependency{{Service: "z", Kind: "requires_health"}},
				},
				{Name: "z", StartCommand: "/z", Health: &module.Health{Method: "TCP", Endpoint: "1", IntervalSeconds: 1, TimeoutSeconds: 1}},
				{Name: "y", StartCommand: "/y", Env: map[string]string{"E": "v"}, Health: &module.Health{Method: "EXEC", Endpoint: "/y", IntervalSeconds: 1, TimeoutSeconds: 1}},
			},
		}
		fields[int(field)%len(fields)](m, content)
		made, err := Make(Module{Name: m.Name, Manifest: m}, Node{Agent: agentPath, AppArmor: true, SELinux: true})
		if err != nil {
			return
		}
		for _, u := range made.Units {
			list, err := checkUnit(u)
			if err != nil {
				t.Fatalf("%v\n%s", err, u.Text)
			}
			for _, d := range list {
				checkMeaning(t, m, u, d)
			}
		}
	})
}

// checkMeaning: a shell gets a line of an init as it is, and a service its environment.
func checkMeaning(t *testing.T, m *module.Manifest, u Unit, d [2]string) {
	t.Helper()
	want := map[string]string{"Service.ExecStart": m.Init.Start, "Service.ExecStop": m.Init.Stop, "Service.ExecReload": m.Init.Restart}[d[0]]
	if u.Kind == KindInit && strings.TrimSpace(want) != "" {
		if got, err := unquote(d[1]); err != nil || len(got) != 3 || got[2] != want {
			t.Fatalf("%q, %v: not %q", got, err, want)
		}
	}
	if d[0] == "Service.Environment" {
		got, err := unquote(strings.ReplaceAll(d[1], "$", "$$"))
		if err != nil || len(got) != 1 {
			t.Fatalf("%q, %v", got, err)
		}
		i := slices.IndexFunc(m.Services, func(s module.Service) bool { return s.Name == u.Service })
		name, value, _ := strings.Cut(got[0], "=")
		if have, ok := m.Services[i].Env[name]; !ok || have != value {
			t.Fatalf("%q=%q isn't in the env", name, value)
		}
	}
}

// FuzzWords: what a line is split into is what systemd starts.
func FuzzWords(f *testing.F) {
	for _, line := range []string{"a 'b c' \"d\\\"\" e\\ f", "a $E ${E}", "a ''", "x; y", "\"`\"", "a # b", "a\tb", `a "\x"`, "ü 'ß'"} {
		f.Add(line, "v $ % \" \\")
	}
	f.Fuzz(func(t *testing.T, line, value string) {
		env := map[string]string{"E": value}
		want, err := words(line, env)
		if err != nil || checkText(value) != nil {
			return
		}
		got, err := unquote(arguments(want))
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%q: %q, and systemd has %q, %v", line, want, got, err)
		}
	})
}
