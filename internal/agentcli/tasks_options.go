package agentcli

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/services"
	"github.com/powernode/powernode-agent/internal/task"
)

// taskConfirm is how long a live change that the platform asks for has to be confirmed by its answer: it may be what cuts the
// node off.
const taskConfirm = time.Minute

// taskCommands says how the kinds of tasks become commands of this program: the options that each takes.
var taskCommands = map[nodeapi.TaskKind]struct {
	// confirmed says that the command goes live, and is taken back unless it is confirmed.
	confirmed bool
	options   []string
}{
	nodeapi.TaskAttach:   {true, []string{"modules", "stage", "allow_downgrade"}},
	nodeapi.TaskDetach:   {true, []string{"modules", "stage", "remove_most"}},
	nodeapi.TaskUpdate:   {true, []string{"stage", "allow_downgrade", "remove_most", "retry"}},
	nodeapi.TaskSync:     {true, []string{"stage", "allow_downgrade", "remove_most", "retry"}},
	nodeapi.TaskRollback: {true, []string{"generation", "stage"}},
	nodeapi.TaskInit:     {false, []string{"modules", "action"}},
	nodeapi.TaskGC:       {false, []string{"keep"}},
	// These take none, and aren't commands of their own.
	nodeapi.TaskReboot:     {},
	nodeapi.TaskSoftReboot: {},
	nodeapi.TaskRotate:     {},
	nodeapi.TaskIntrospect: {},
}

// The forms of what names a module: its name or its ID, and for attach a reference with its registry. None begins with a hyphen.
var (
	moduleForm    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$`)
	referenceForm = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,252}(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]{0,127})+(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$`)
)

// Bounds of a task's options.
const (
	taskModules = 64
	taskKeep    = 1000
)

// taskOptions reads the options of a task. Every error says that they aren't those of the kind.
func taskOptions(kind nodeapi.TaskKind, raw json.RawMessage) (nodeapi.TaskOptions, error) {
	o, err := parseTaskOptions(kind, raw)
	if err != nil {
		return o, task.Fail(nodeapi.FailOptions, fmt.Errorf("options of %s: %w", kind, err))
	}
	return o, nil
}

func parseTaskOptions(kind nodeapi.TaskKind, raw json.RawMessage) (o nodeapi.TaskOptions, err error) {
	takes, given := taskCommands[kind].options, map[string]json.RawMessage{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &given); err != nil {
			return o, err
		}
		// It knows no other names than those of the struct, and no name twice.
		if err := durable.DecodeJSON(raw, &o); err != nil {
			return o, err
		}
	}
	for name := range given {
		if !slices.Contains(takes, name) {
			return o, fmt.Errorf("it takes no %.40q", name)
		}
	}
	if len(o.Modules) > taskModules {
		return o, fmt.Errorf("%d modules, at most %d are taken", len(o.Modules), taskModules)
	}
	for _, m := range o.Modules {
		if !moduleForm.MatchString(m) && (kind != nodeapi.TaskAttach || len(m) > 512 || !referenceForm.MatchString(m)) {
			return o, fmt.Errorf("%.80q names no module", m)
		}
	}
	switch {
	case slices.Contains(takes, "modules") && len(o.Modules) == 0:
		return o, fmt.Errorf("it needs %q", "modules")
	case kind == nodeapi.TaskInit && len(o.Modules) != 1:
		return o, fmt.Errorf("%d modules: it is about one", len(o.Modules))
	case kind == nodeapi.TaskInit && !slices.Contains(services.Actions(), services.Action(o.Action)):
		return o, fmt.Errorf("unknown action %.40q", o.Action)
	case o.Keep < 0 || o.Keep > taskKeep:
		return o, fmt.Errorf("keep %d: want 1 to %d, or 0 for the agent's own number", o.Keep, taskKeep)
	}
	return o, nil
}

// taskArgs returns the command of this program that does a task. Its values can't be taken for flags.
func taskArgs(kind nodeapi.TaskKind, o nodeapi.TaskOptions, stateDir string) []string {
	args := []string{string(kind)}
	if kind == nodeapi.TaskInit {
		return append(args, o.Modules[0], o.Action) // it has no --state
	}
	args = append(args, "--state="+stateDir)
	if taskCommands[kind].confirmed {
		args = append(args, "--confirm="+taskConfirm.String())
	}
	for _, f := range []struct {
		set  bool
		flag string
	}{
		{o.Stage, "--stage"},
		{o.AllowDowngrade, "--allow-downgrade"},
		{o.RemoveMost, "--remove-most"},
		{o.Retry, "--retry"},
		{o.Keep > 0, "--keep=" + strconv.Itoa(o.Keep)},
	} {
		if f.set {
			args = append(args, f.flag)
		}
	}
	if o.Generation > 0 {
		args = append(args, strconv.FormatUint(o.Generation, 10))
	}
	return append(args, o.Modules...)
}
