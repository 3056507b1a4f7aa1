package nodeapi

import (
	"encoding/json"
	"net/url"
	"strings"
	"time"
)

// The paths of tasks, below the platform's URL. {task} takes a task's ID, see TaskPath.
const (
	PathTasks        = Base + "/tasks"
	PathTaskLease    = PathTasks + "/lease"
	PathTaskRenew    = PathTasks + "/{task}/renew"
	PathTaskProgress = PathTasks + "/{task}/progress"
	PathTaskComplete = PathTasks + "/{task}/complete"
	PathTaskFail     = PathTasks + "/{task}/fail"
)

// TaskPath puts a task's ID into one of these paths, as exactly one segment.
func TaskPath(path, id string) string {
	return strings.ReplaceAll(path, "{task}", url.PathEscape(id))
}

// CodeLeaseLost (409) says that a lease isn't in force: it expired, another took its place, or the task was ended by another
// lease. Whoever hears it stops what they do under it; their result doesn't count.
const CodeLeaseLost Code = "LEASE_LOST"

// CodeReportRefused (422) says that this very word on a task (its output, message, error, code or result) can't be taken, ever, and that all
// else about the task can. Nothing but this code has a node leave something out.
const CodeReportRefused Code = "REPORT_REFUSED"

// Bounds of tasks.
const (
	// MaxTaskOptions and MaxTaskResult are bytes of JSON.
	MaxTaskOptions = 64 << 10
	MaxTaskResult  = 64 << 10
	// MaxTaskMessage is bytes of a message, and of an error's text.
	MaxTaskMessage = 1000
	// MaxTaskOutput is how many bytes of a task's output are kept, the last ones; MaxOutputChunk how many one call may bring.
	MaxTaskOutput  = 256 << 10
	MaxOutputChunk = 64 << 10
	// MaxLeased is how many tasks one call may lease, MaxHolding how many leases it may name as held.
	MaxLeased  = 16
	MaxHolding = 64
	// MaxLeaseWait is how long a call for a lease may wait for a task.
	MaxLeaseWait = time.Minute
	// MaxAttempts is how often a task is begun before it counts as failed.
	MaxAttempts = 5
)

// TaskState is where a task stands.
type TaskState string

// The states. The last three are ends: nothing follows.
const (
	TaskPending    TaskState = "pending"    // waits for its node
	TaskLeased     TaskState = "leased"     // its node has it
	TaskCancelling TaskState = "cancelling" // its node has it, and is to stop
	TaskComplete   TaskState = "complete"
	TaskFailed     TaskState = "failed"
	TaskCancelled  TaskState = "cancelled"
)

// Ended reports whether nothing follows.
func (s TaskState) Ended() bool {
	return s == TaskComplete || s == TaskFailed || s == TaskCancelled
}

// LeaseRequest asks for tasks. A node has one such call under way at a time.
type LeaseRequest struct {
	// Max is how many tasks are wanted at most: 1 to MaxLeased; 0 is 1.
	Max int `json:"max"`
	// WaitSeconds is how long the platform may wait for one; it waits no longer than MaxLeaseWait.
	WaitSeconds int `json:"wait_seconds"`
	// Holding are the leases that the node has: those under which it works, and those whose end the platform hasn't
	// acknowledged. A lease of the node that isn't among them was lost on its way, or with the node's memory: the platform
	// takes it back at once, and doesn't wait until it expires. nil (null) says nothing about them.
	Holding []string `json:"holding"`
}

// LeaseResponse is the tasks that the node has from now on, in the order of their creation; none where there were none in time.
type LeaseResponse struct {
	Tasks []LeasedTask `json:"tasks"`
}

// LeasedTask is a task with the lease under which the node has it.
type LeasedTask struct {
	ID string `json:"id"`
	// LeaseID is 128 random bits in hexadecimal digits: whoever says it has the task.
	LeaseID string   `json:"lease_id"`
	Kind    TaskKind `json:"kind"`
	// Options is a JSON object of at most MaxTaskOptions bytes, see TaskOptions.
	Options json.RawMessage `json:"options,omitempty"`
	// Attempt is 1, and one more for each earlier lease under which the task was begun, as far as the platform knows: one that
	// was renewed, or under which progress was reported, and that came to no end. With more than 1, a task that may be done
	// at most once is only ended: by what the node's journal knows of it, or with FailInterrupted.
	//
	// Therefore a node renews the lease, and waits for the answer, before it begins such a task: the platform remembers
	// that it was begun, and a lease that has been lost meanwhile begins nothing.
	Attempt   int       `json:"attempt"`
	CreatedAt time.Time `json:"created_at"`
	// LeaseSeconds is how long the lease is good from now on. A node renews it after a third of that.
	LeaseSeconds int `json:"lease_seconds"`
	// DeadlineSeconds is how long an attempt may take in all.
	DeadlineSeconds int `json:"deadline_seconds"`
	// RequestedBy is who asked for the task.
	RequestedBy string `json:"requested_by"`
}

// RenewTask keeps a lease in force.
type RenewTask struct {
	LeaseID string `json:"lease_id"`
}

// TaskStanding is the answer to RenewTask and TaskProgress.
type TaskStanding struct {
	// LeaseSeconds is how long the lease is good from now on.
	LeaseSeconds int `json:"lease_seconds"`
	// Cancel asks the node to stop, and to fail the task with FailCancelled. One that is done all the same is completed.
	Cancel bool `json:"cancel"`
}

// TaskProgress says how far a task is, and renews its lease.
type TaskProgress struct {
	LeaseID string `json:"lease_id"`
	// Percent is 0 to 100; Message is a sentence of at most MaxTaskMessage bytes, "" leaves what was said.
	Percent int    `json:"percent"`
	Message string `json:"message,omitempty"`
	// Output is more of the task's output: valid UTF-8, at most MaxOutputChunk bytes, which begin at OutputOffset bytes of the
	// attempt's output. What was received before is the same, and counts once; what is left out between is noted.
	Output       string `json:"output,omitempty"`
	OutputOffset int64  `json:"output_offset,omitempty"`
}

// CompleteTask ends a task that was done.
type CompleteTask struct {
	LeaseID string `json:"lease_id"`
	// Result is a JSON object of at most MaxTaskResult bytes; nothing is an empty one.
	Result json.RawMessage `json:"result,omitempty"`
}

// FailTask ends a task that wasn't done, or not whole.
type FailTask struct {
	LeaseID string `json:"lease_id"`
	// Error says in a sentence of at most MaxTaskMessage bytes what went wrong, Code in a word.
	Error string   `json:"error"`
	Code  FailCode `json:"code"`
	// Result is as in CompleteTask: what came of it up to then.
	Result json.RawMessage `json:"result,omitempty"`
}

// FailCode says in a word why a task failed. A node may have others: 1 to 64 capital letters, digits and underscores.
type FailCode string

// The codes. The platform itself gives the last two, and FailCancelled.
const (
	FailFailed      FailCode = "FAILED"       // it was tried, and didn't work
	FailRefused     FailCode = "REFUSED"      // the node doesn't do such a thing
	FailUnknownKind FailCode = "UNKNOWN_KIND" // the node's agent doesn't know the kind
	FailOptions     FailCode = "BAD_OPTIONS"  // the options aren't those of the kind
	FailTimeout     FailCode = "TIMEOUT"      // it took longer than its deadline
	FailCancelled   FailCode = "CANCELLED"    // an operator asked for that
	FailInterrupted FailCode = "INTERRUPTED"  // it was begun, isn't known to be done, and may not be done twice
	FailAttempts    FailCode = "TOO_MANY_ATTEMPTS"
	FailExpired     FailCode = "EXPIRED" // its node didn't come for it in time
)

// TaskEnd acknowledges the end of a task. The same end by the same lease is acknowledged again.
type TaskEnd struct {
	State TaskState `json:"state"`
}
