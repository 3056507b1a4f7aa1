package agentcli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/services"
	"github.com/powernode/powernode-agent/internal/task"
)

// taskWish is what a task is about, whatever platform named it.
type taskWish struct {
	kind    nodeapi.TaskKind
	options nodeapi.TaskOptions
	// unit is the one that a command of the existing platform is about; "" for all of its module.
	unit string
}

// unitOption is the option by which the existing platform says what is to be started, stopped or restarted.
const unitOption = "unit"

// meant returns what a task is about.
func meant(t task.Task) (taskWish, error) {
	kind, action, known, _ := nodeapi.Command(string(t.Kind))
	if !known {
		kind = t.Kind
	}
	w := taskWish{kind: kind}
	raw := t.Options
	if action != "" {
		given := map[string]json.RawMessage{}
		if err := json.Unmarshal(orObject(raw), &given); err != nil {
			return w, task.Fail(nodeapi.FailOptions, fmt.Errorf("options of %s: %w", t.Kind, err))
		}
		if given == nil { // null
			given = map[string]json.RawMessage{}
		}
		if err := w.take(given); err != nil {
			return w, err
		}
		given["action"] = json.RawMessage(`"` + action + `"`)
		raw = plain(given)
	}
	var err error
	w.options, err = taskOptions(kind, raw)
	return w, err
}

// take turns the option of the existing platform into the module whose unit it names.
func (w *taskWish) take(given map[string]json.RawMessage) error {
	raw, ok := given[unitOption]
	if !ok {
		return nil
	}
	delete(given, unitOption)
	if err := json.Unmarshal(raw, &w.unit); err != nil || len(w.unit) > 256 {
		return task.Fail(nodeapi.FailOptions, errors.New("unit: it isn't the name of one"))
	}
	if len(given) > 0 {
		return task.Fail(nodeapi.FailOptions, errors.New("unit: no other option goes with it"))
	}
	if !strings.Contains(w.unit, ".") { // systemctl(1)
		w.unit += ".service"
	}
	module := services.UnitModule(w.unit)
	if module == "" || !strings.HasSuffix(w.unit, ".service") {
		return fault.New(fault.Refuse, fault.Service, "powernode-agent init MODULE status lists those of a module",
			"unit %.80q isn't one of a module's services: those are named powernode-MODULE_SERVICE.service, and no other unit is touched", w.unit)
	}
	given["modules"] = plain([]string{module})
	return nil
}

// args returns the command of this program that does it. Its values can't be taken for flags.
func (w taskWish) args(stateDir string) []string {
	args := taskArgs(w.kind, w.options, stateDir)
	if w.unit != "" {
		args = append(args, "--unit="+w.unit)
	}
	return args
}

// named returns a task as its audit record names it: with what it is about, once that is known to be nothing else.
func named(t task.Task) task.Task {
	w, err := meant(t)
	t.Options = nil // which may hold anything, secrets too
	if err == nil {
		t.Kind, t.Options = w.kind, plain(struct {
			nodeapi.TaskOptions
			Unit string `json:"unit,omitempty"`
		}{w.options, w.unit})
	}
	if string(t.Options) == "{}" {
		t.Options = nil
	}
	return t
}

func orObject(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage("{}")
	}
	return raw
}
