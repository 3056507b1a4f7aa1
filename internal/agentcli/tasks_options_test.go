package agentcli

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/task"
)

// TestTaskArgs: the command of each kind, and what is no task's option.
func TestTaskArgs(t *testing.T) {
	for _, c := range []struct {
		kind    nodeapi.TaskKind
		options string
		want    string // "" is refused
	}{
		{"attach", `{"modules":["nginx","0b1f"],"stage":true}`, "attach --state=/s --confirm=1m0s --stage nginx 0b1f"},
		{"attach", `{"modules":["registry.example:5000/a/b@sha256:` + strings.Repeat("a", 64) + `"]}`, "attach --state=/s --confirm=1m0s registry.example:5000/a/b@sha256:" + strings.Repeat("a", 64)},
		{"detach", `{"modules":["nginx"],"remove_most":true}`, "detach --state=/s --confirm=1m0s --remove-most nginx"},
		{"update", ``, "update --state=/s --confirm=1m0s"},
		{"sync", `{"retry":true,"allow_downgrade":true}`, "sync --state=/s --confirm=1m0s --allow-downgrade --retry"},
		{"rollback", `{"generation":7}`, "rollback --state=/s --confirm=1m0s 7"},
		{"gc", `{"keep":3}`, "gc --state=/s --keep=3"},
		{"init", `{"modules":["nginx"],"action":"restart"}`, "init nginx restart"},
		{"restart", `{"modules":["nginx"]}`, "init nginx restart"},
		{"stop", `{"modules":["nginx"],"action":"start"}`, "init nginx stop"},
		{"restart", `{"unit":"powernode-nginx_web.service"}`, "init nginx restart --unit=powernode-nginx_web.service"},
		{"stop", `{"unit":"powernode-nginx_web"}`, "init nginx stop --unit=powernode-nginx_web.service"},
		{"start", `{"unit":"powernode-chrony.init.service"}`, "init chrony start --unit=powernode-chrony.init.service"},
		{"sync_modules", `{}`, "sync --state=/s --confirm=1m0s"},
		{"apply_config", ``, "sync --state=/s --confirm=1m0s"},

		{"attach", `{}`, ""},
		{"attach", `{"modules":["--stage"]}`, ""},
		{"attach", `{"modules":["-x"]}`, ""},
		{"attach", `{"modules":["a b"]}`, ""},
		{"attach", `{"modules":["a\n"]}`, ""},
		{"attach", `{"modules":[""]}`, ""},
		{"attach", `{"modules":["../x"]}`, ""},
		{"attach", `{"modules":["x/../y:1 --stage"]}`, ""},
		{"attach", `{"modules":["a"],"retry":true}`, ""},
		{"attach", `{"modules":["a"],"trust_policy":"/tmp/x"}`, ""},
		{"attach", `{"modules":` + "[" + strings.Repeat(`"a",`, 64) + `"a"]}`, ""},
		{"detach", `{"modules":["registry.example/a"]}`, ""},
		{"update", `{"modules":["a"]}`, ""},
		{"init", `{"modules":["a","b"],"action":"start"}`, ""},
		{"init", `{"modules":["a"],"action":"--help"}`, ""},
		{"init", `{"modules":["a"]}`, ""},
		{"start", `{}`, ""},
		{"start", `null`, ""},
		{"start", `{"unit":7}`, ""},
		{"start", `{"unit":"powernode-nginx_web.service","modules":["other"]}`, ""},
		{"init", `{"unit":"powernode-nginx_web.service","action":"start"}`, ""},
		{"sync_modules", `{"unit":"powernode-nginx_web.service"}`, ""},
		{"gc", `{"keep":-1}`, ""},
		{"rollback", `{"generation":-1}`, ""},
		{"reboot", `{"stage":true}`, ""},
		{"update", `[]`, ""},
	} {
		wish, err := meant(task.Task{Kind: c.kind, Options: json.RawMessage(c.options)})
		if c.want == "" {
			if err == nil || task.CodeOf(err) != nodeapi.FailOptions {
				t.Errorf("%s %s: %v, code %s", c.kind, c.options, err, task.CodeOf(err))
			}
			continue
		}
		if err != nil {
			t.Errorf("%s %s: %v", c.kind, c.options, err)
			continue
		}
		args := wish.args("/s")
		if got := strings.Join(args, " "); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.kind, c.options, got, c.want)
		}
		// The program takes every flag of it.
		cmd, rest, err := New(cli.NewApp()).Find(args)
		if err != nil || cmd.Name() != string(wish.kind) {
			t.Fatalf("%v: %v", args, err)
		}
		if err := cmd.ParseFlags(append(rest, "--output", "json")); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// TestUnitOfTheExistingPlatform: what it would have started, and isn't a module's, is refused in words, and by no other name.
func TestUnitOfTheExistingPlatform(t *testing.T) {
	for _, unit := range []string{
		"nginx.service", "nginx", "", "--now", "sshd.service", "powernode-agent.service", "powernode-nginx_web.health.timer", "powernode-nginx_web.service\n", "../x.service",
	} {
		text, err := json.Marshal(map[string]string{"unit": unit})
		if err != nil {
			t.Fatal(err)
		}
		_, err = meant(task.Task{Kind: "stop", Options: text})
		if err == nil || task.CodeOf(err) != nodeapi.FailRefused || !strings.Contains(err.Error(), "isn't one of a module's services") {
			t.Errorf("%q: %v, code %s", unit, err, task.CodeOf(err))
		}
	}
}

// TestNamed: an audit record says what a task is about, by our names, and never what nobody has checked.
func TestNamed(t *testing.T) {
	for _, c := range []struct{ kind, options, want string }{
		{"stop", `{"unit":"powernode-nginx_web.service"}`, `init {"modules":["nginx"],"action":"stop","unit":"powernode-nginx_web.service"}`},
		{"restart", `{"modules":["nginx"]}`, `init {"modules":["nginx"],"action":"restart"}`},
		{"apply_config", ``, `sync `},
		{"attach", `{"modules":["nginx"],"password":"x"}`, `attach `},
		{"stop", `{"unit":"sshd.service"}`, `stop `},
		{"attach", `{"modules":["nginx"]}`, `attach {"modules":["nginx"]}`},
		{"ssh_command", `{"command":"secret"}`, `ssh_command `},
	} {
		got := named(task.Task{Kind: nodeapi.TaskKind(c.kind), Options: json.RawMessage(c.options)})
		if text := string(got.Kind) + " " + string(got.Options); text != c.want {
			t.Errorf("%s %s: %s, want %s", c.kind, c.options, text, c.want)
		}
	}
}

// TestHandlers: there is one for every kind that a platform may ask for, and none for a shell line.
func TestHandlers(t *testing.T) {
	var kinds []nodeapi.TaskKind
	for _, h := range (taskHandlers{}).list() {
		kinds = append(kinds, h.Kind)
		if h.Again == task.AtMostOnce && h.Kind != nodeapi.TaskReboot && h.Kind != nodeapi.TaskSoftReboot {
			t.Errorf("%s is done at most once", h.Kind)
		}
	}
	for _, k := range nodeapi.TaskKinds() {
		if !slices.Contains(kinds, k) {
			t.Errorf("nobody does %s", k)
		}
		if _, ok := taskCommands[k]; !ok {
			t.Errorf("nobody knows the options of %s", k)
		}
	}
	for _, k := range []nodeapi.TaskKind{"terminate", "ssh_command", "custom", "exec"} {
		if slices.Contains(kinds, k) {
			t.Errorf("somebody does %s", k)
		}
	}
}

func FuzzTaskOptions(f *testing.F) {
	for _, seed := range []string{`{}`, `{"modules":["a"]}`, `{"modules":["--x"],"action":"start"}`, `{"keep":1}`} {
		for _, kind := range nodeapi.TaskKinds() {
			f.Add(string(kind), seed)
		}
	}
	f.Fuzz(func(t *testing.T, kind, options string) {
		wish, err := meant(task.Task{Kind: nodeapi.TaskKind(kind), Options: json.RawMessage(options)})
		if err != nil {
			return
		}
		plain := 0
		for _, a := range wish.args("/s")[1:] {
			if a == "" || strings.ContainsAny(a, "\x00\n $") {
				t.Errorf("%s %s: argument %q", kind, options, a)
			}
			if !strings.HasPrefix(a, "-") {
				plain++
			}
		}
		if want := len(wish.options.Modules); plain < want {
			t.Errorf("%s %s: a module has become a flag", kind, options)
		}
	})
}
