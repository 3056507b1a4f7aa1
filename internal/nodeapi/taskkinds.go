package nodeapi

import (
	"maps"
	"slices"
	"time"
)

// TaskKind is what a task is about.
type TaskKind string

// The kinds.
const (
	TaskAttach     TaskKind = "attach"
	TaskDetach     TaskKind = "detach"
	TaskUpdate     TaskKind = "update"
	TaskSync       TaskKind = "sync"
	TaskRollback   TaskKind = "rollback"
	TaskInit       TaskKind = "init"
	TaskReboot     TaskKind = "reboot"
	TaskSoftReboot TaskKind = "soft-reboot"
	TaskRotate     TaskKind = "rotate"
	TaskIntrospect TaskKind = "introspect"
	TaskGC         TaskKind = "gc"
)

// TaskClass says which of a node's tasks may run beside each other.
type TaskClass string

// The classes.
const (
	// ClassRoot are those that change what runs: one at a time, in the order of their creation.
	ClassRoot TaskClass = "root"
	// ClassBeside are those that don't, and run beside everything.
	ClassBeside TaskClass = "beside"
)

// TaskTraits is what all tasks of a kind have in common.
type TaskTraits struct {
	Class TaskClass
	// Deadline is how long an attempt may take, unless the task says otherwise.
	Deadline time.Duration
}

var taskKinds = map[TaskKind]TaskTraits{
	TaskAttach:     {ClassRoot, time.Hour},
	TaskDetach:     {ClassRoot, time.Hour},
	TaskUpdate:     {ClassRoot, time.Hour},
	TaskSync:       {ClassRoot, time.Hour},
	TaskRollback:   {ClassRoot, time.Hour},
	TaskInit:       {ClassRoot, 10 * time.Minute},
	TaskReboot:     {ClassRoot, 30 * time.Minute},
	TaskSoftReboot: {ClassRoot, 30 * time.Minute},
	TaskGC:         {ClassRoot, time.Hour},
	TaskRotate:     {ClassBeside, 10 * time.Minute},
	TaskIntrospect: {ClassBeside, 2 * time.Minute},
}

// TaskKinds returns the kinds, sorted.
func TaskKinds() []TaskKind { return slices.Sorted(maps.Keys(taskKinds)) }

// Traits returns what tasks of the kind have in common, and whether the kind is known. One that isn't counts as of ClassRoot:
// a peer may be newer.
func (k TaskKind) Traits() (traits TaskTraits, known bool) {
	traits, known = taskKinds[k]
	if !known {
		traits = TaskTraits{Class: ClassRoot, Deadline: time.Hour}
	}
	return traits, known
}

// TaskOptions are the options of the kinds above; each takes those that its comment names, and no others.
type TaskOptions struct {
	// Modules are names or IDs. attach and detach need one or more, init one.
	Modules []string `json:"modules,omitempty"`
	// Action is what init does: start, stop, restart, reload or status.
	Action string `json:"action,omitempty"`
	// Generation is the one that rollback goes to; 0 is the one before the present one.
	Generation uint64 `json:"generation,omitempty"`
	// Stage leaves what runs alone, and has the next boot try it (attach, detach, update, sync, rollback).
	Stage bool `json:"stage,omitempty"`
	// AllowDowngrade lets modules go below the highest version that was current (attach, update, sync); RemoveMost lets more
	// than half of the modules go at once (detach, update, sync); Retry tries modules again that failed (update, sync).
	AllowDowngrade bool `json:"allow_downgrade,omitempty"`
	RemoveMost     bool `json:"remove_most,omitempty"`
	Retry          bool `json:"retry,omitempty"`
	// Keep is how many of the newest generations gc keeps; 0 is the agent's own number.
	Keep int `json:"keep,omitempty"`
}

// refusedCommands are commands of the existing platform that no agent of ours obeys: the end of a machine, and any shell line.
var refusedCommands = []string{"terminate", "ssh_command", "custom"}

// Command returns the kind of task, and for init the action, that a command of the existing platform means. known is false for one
// that means nothing here, refused true for one that is refused on purpose.
func Command(name string) (kind TaskKind, action string, known, refused bool) {
	switch name {
	case "start", "stop", "restart":
		return TaskInit, name, true, false
	case "sync_modules", "apply_config":
		return TaskSync, "", true, false
	}
	if _, ok := taskKinds[TaskKind(name)]; ok {
		return TaskKind(name), "", true, false
	}
	return "", "", false, slices.Contains(refusedCommands, name)
}
