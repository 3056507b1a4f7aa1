package api

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// initActions are what a task of the kind init may do.
var initActions = []string{"start", "stop", "restart", "reload", "status"}

// optionsOf names the options that each kind takes; those with a star are needed.
var optionsOf = map[nodeapi.TaskKind][]string{
	nodeapi.TaskAttach:   {"modules*", "stage", "allow_downgrade"},
	nodeapi.TaskDetach:   {"modules*", "stage", "remove_most"},
	nodeapi.TaskUpdate:   {"stage", "allow_downgrade", "remove_most", "retry"},
	nodeapi.TaskSync:     {"stage", "allow_downgrade", "remove_most", "retry"},
	nodeapi.TaskRollback: {"generation", "stage"},
	nodeapi.TaskInit:     {"modules*", "action*"},
	nodeapi.TaskGC:       {"keep"},
}

func kinds() string {
	var names []string
	for _, k := range nodeapi.TaskKinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// taskOptions checks the options of a task and returns them in the form that nodes get. action, if not "", is the one that the
// kind was named by.
func taskOptions(kind nodeapi.TaskKind, action string, raw json.RawMessage) (string, error) {
	text, err := jsonObject("options", raw, nodeapi.MaxTaskOptions)
	if err != nil {
		return "", err
	}
	if text == "" {
		text = "{}"
	}
	var in nodeapi.TaskOptions
	if err := durable.DecodeJSON([]byte(text), &in); err != nil {
		return "", invalid("options: %v", err)
	}
	if action != "" {
		in.Action = action
	}
	out, err := json.Marshal(in)
	if err != nil {
		return "", err
	}
	return string(out), checkOptions(kind, in, out)
}

// checkOptions refuses options that the kind doesn't have, and asks for those that it needs.
func checkOptions(kind nodeapi.TaskKind, in nodeapi.TaskOptions, out []byte) error {
	var given map[string]json.RawMessage
	if err := json.Unmarshal(out, &given); err != nil {
		return err
	}
	for name := range given {
		if takes := optionsOf[kind]; !slices.Contains(takes, name) && !slices.Contains(takes, name+"*") {
			return invalid("options: %s has no option %q", kind, name)
		}
	}
	for _, name := range optionsOf[kind] {
		if name, needed := strings.CutSuffix(name, "*"); needed && given[name] == nil {
			return invalid("options: %s needs %q", kind, name)
		}
	}
	for _, m := range in.Modules {
		if err := checkText("a module", m, 512, true); err != nil {
			return err
		}
	}
	switch {
	case kind == nodeapi.TaskInit && len(in.Modules) != 1:
		return invalid("options: init is about one module")
	case in.Action != "" && !slices.Contains(initActions, in.Action):
		return invalid("options: action %.40q: want one of %s", in.Action, strings.Join(initActions, ", "))
	case in.Keep < 0:
		return invalid("options: keep can't be negative")
	}
	return nil
}
