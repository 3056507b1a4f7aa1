package operatorapi

import (
	"encoding/json"
	"time"
)

// The paths of tasks and of what nodes tell, below the platform's URL. {task} takes a task's ID.
const (
	PathTasks      = Base + "/tasks"
	PathTask       = PathTasks + "/{task}"
	PathTaskCancel = PathTask + "/cancel"
	PathNodeTasks  = PathNode + "/tasks"
	PathNodeEvents = Base + "/node-events"
)

// The query parameters of GET PathTasks and GET PathNodeEvents.
const (
	// QueryNode is a node's ID or name; without it all nodes are meant.
	QueryNode = "node"
	// QueryOpen, as "true", leaves out tasks that have ended.
	QueryOpen = "open"
	// QueryLimit is how many are wanted, at most MaxListed and without it DefaultListed.
	QueryLimit = "limit"
)

// Bounds of tasks and of lists.
const (
	// MaxTaskDeadline is the longest time that an attempt at a task may be given.
	MaxTaskDeadline = 24 * time.Hour
	// DefaultTaskLife is how long a task waits for its node where nothing is said, MaxTaskLife how long it may at most.
	DefaultTaskLife = 7 * 24 * time.Hour
	MaxTaskLife     = 366 * 24 * time.Hour
	MaxListed       = 1000
	DefaultListed   = 100
)

// TaskCreate asks a node for something.
type TaskCreate struct {
	// ID is a UUID of the caller's own making: asking again with it, as after a lost answer, makes no second task. "" has the
	// platform make one.
	ID string `json:"id,omitempty"`
	// Kind is one of nodeapi.TaskKinds, or a command of the existing platform that means one: nodeapi.Command.
	Kind string `json:"kind"`
	// Options is a JSON object, see nodeapi.TaskOptions; nothing is an empty one.
	Options json.RawMessage `json:"options,omitempty"`
	// DeadlineSeconds is how long an attempt may take; 0 is as long as the kind has.
	DeadlineSeconds int64 `json:"deadline_seconds,omitempty"`
	// ExpiresInSeconds is how long the task may wait for its node, from its creation on; 0 is DefaultTaskLife. What the node has by
	// then it may end; what it hasn't is failed with nodeapi.FailExpired.
	ExpiresInSeconds int64 `json:"expires_in_seconds,omitempty"`
}

// Task is what a node was asked for, and what came of it.
type Task struct {
	ID       string          `json:"id"`
	NodeID   string          `json:"node_id"`
	NodeName string          `json:"node_name"`
	Kind     string          `json:"kind"`
	Options  json.RawMessage `json:"options"`
	// State is pending, leased, cancelling, complete, failed or cancelled.
	State       string    `json:"state"`
	RequestedBy string    `json:"requested_by"`
	CreatedAt   time.Time `json:"created_at"`
	// ExpiresAt is until when it may wait for its node; nil is without an end, as tasks from before there was one have none.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	// BegunAt is when the node took it up first, EndedAt when it ended.
	BegunAt *time.Time `json:"begun_at,omitempty"`
	EndedAt *time.Time `json:"ended_at,omitempty"`
	// LeaseExpiresAt is when the node that has it must have been heard of.
	LeaseExpiresAt *time.Time `json:"lease_expires_at,omitempty"`
	// Attempt is the present one, or the last, from 1.
	Attempt         int   `json:"attempt"`
	DeadlineSeconds int64 `json:"deadline_seconds"`
	// Percent and Message say how far it is.
	Percent int    `json:"percent"`
	Message string `json:"message,omitempty"`
	// CancelledBy is who asked for its end.
	CancelledBy string `json:"cancelled_by,omitempty"`
	// Code and Error say why it failed, or was cancelled; codes are nodeapi.FailCode.
	Code  string `json:"code,omitempty"`
	Error string `json:"error,omitempty"`
}

// TaskDetail is a task with all that its node said of it.
type TaskDetail struct {
	Task Task `json:"task"`
	// Result is a JSON object; nil where the node said nothing.
	Result json.RawMessage `json:"result,omitempty"`
	// Output is the end of what the task printed, OutputDropped how many bytes are missing before it.
	Output        string `json:"output"`
	OutputDropped int64  `json:"output_dropped,omitempty"`
}

// TaskList is tasks, the newest first.
type TaskList struct {
	Tasks []Task `json:"tasks"`
	Count int    `json:"count"`
}

// NodeEvent is what a node told of itself.
type NodeEvent struct {
	// ID is the node's own.
	ID       string `json:"id"`
	NodeID   string `json:"node_id"`
	NodeName string `json:"node_name"`
	// At is by the node's clock.
	At         time.Time `json:"at"`
	ReceivedAt time.Time `json:"received_at"`
	Kind       string    `json:"kind"`
	// Severity is info, warning or error.
	Severity string            `json:"severity"`
	Text     string            `json:"text"`
	Fields   map[string]string `json:"fields,omitempty"`
}

// NodeEventList is what nodes told, the newest first.
type NodeEventList struct {
	Events []NodeEvent `json:"events"`
	Count  int         `json:"count"`
}
