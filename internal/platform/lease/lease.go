// Package lease decides what becomes of a task: when its node gets it, how long a lease is good, what an end under it counts for.
//
// It promises that a task has at most one lease in force at any time; that whoever doesn't say the lease in force changes nothing;
// that nothing follows an end; and that a task is begun at most nodeapi.MaxAttempts times. Everything is a function of its arguments:
// who calls it keeps the tasks, and lets two decisions about one node's tasks follow each other. It trusts the clock it is given.
package lease

import (
	"errors"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

const (
	// Life is how long a lease is good, from its grant or its last renewal on.
	Life = time.Minute
	// MaxGrants bounds how often a task is given to its node in all. Grants whose answer was lost are no attempts, so that
	// a bad network costs a task nothing; but a node that falls over what it is told shouldn't do so for ever.
	MaxGrants = 100
)

// ErrLost says that a lease isn't in force, and hasn't ended the task in this way either.
var ErrLost = errors.New("the lease isn't in force")

// Task is what a decision needs to know of a task, and what it settles.
type Task struct {
	Kind  nodeapi.TaskKind
	State nodeapi.TaskState
	// Lease is the lease in force, or the one that ended the task; else "".
	Lease string
	// Expires is when the lease in force ends.
	Expires time.Time
	// Until is when the task is given up, unless its node has it then; zero is never.
	Until time.Time
	// Begun says that the node has taken up the task under this lease.
	Begun bool
	// Attempt is 1, and one more for each lease that was begun and came to nothing. Grants counts all leases.
	Attempt, Grants int
	// Code and Error say why a task failed, or was cancelled.
	Code  nodeapi.FailCode
	Error string
}

// inForce reports whether that lease is the task's, now.
func (t Task) inForce(lease string, now time.Time) bool {
	return held(t.State) && lease != "" && lease == t.Lease && now.Before(t.Expires)
}

// held reports whether a node has a task of that state.
func held(s nodeapi.TaskState) bool { return s == nodeapi.TaskLeased || s == nodeapi.TaskCancelling }

// Settle returns what became of a task whose lease has expired, or that has waited for too long, and other tasks as they are.
func Settle(t Task, now time.Time) Task {
	if held(t.State) && !now.Before(t.Expires) {
		t = takenBack(t, "the lease expired: the node wasn't heard of")
	}
	if t.State != nodeapi.TaskPending || t.Until.IsZero() || now.Before(t.Until) {
		return t
	}
	text := "its node didn't come for it until " + t.Until.UTC().Format(time.RFC3339)
	if t.Attempt > 1 {
		text = "its node began it, and didn't come for it again until " + t.Until.UTC().Format(time.RFC3339) + "; some of it may have been done"
	}
	return ended(t, nodeapi.TaskFailed, nodeapi.FailExpired, text)
}

// TakeBack returns a task whose node says that it doesn't have the lease.
func TakeBack(t Task) Task {
	if !held(t.State) {
		return t
	}
	return takenBack(t, "the node lost the lease")
}

// takenBack ends the lease in force, and leaves the task to the next one, if there is to be one.
func takenBack(t Task, why string) Task {
	begun, cancelling := t.Begun, t.State == nodeapi.TaskCancelling
	t.State, t.Lease, t.Expires, t.Begun = nodeapi.TaskPending, "", time.Time{}, false
	if begun {
		t.Attempt++
	}
	switch {
	case cancelling && begun:
		return ended(t, nodeapi.TaskCancelled, nodeapi.FailCancelled, why+" while it was being cancelled; some of it may have been done")
	case cancelling:
		return ended(t, nodeapi.TaskCancelled, nodeapi.FailCancelled, "cancelled before it was begun")
	case t.Attempt > nodeapi.MaxAttempts:
		t.Attempt = nodeapi.MaxAttempts
		return ended(t, nodeapi.TaskFailed, nodeapi.FailAttempts, why+", in the last of its attempts; some of it may have been done")
	case t.Grants >= MaxGrants:
		return ended(t, nodeapi.TaskFailed, nodeapi.FailAttempts, "the node was given it too often")
	}
	return t
}

func ended(t Task, state nodeapi.TaskState, code nodeapi.FailCode, text string) Task {
	t.State, t.Code, t.Error, t.Expires, t.Begun = state, code, text, time.Time{}, false
	return t
}

// Grant returns a pending task with a lease of that ID.
func Grant(t Task, id string, now time.Time) Task {
	if t.State != nodeapi.TaskPending {
		return t
	}
	t.State, t.Lease, t.Expires, t.Begun = nodeapi.TaskLeased, id, now.Add(Life), false
	t.Grants++
	return t
}

// Renew returns a task whose node goes on with it, and ErrLost where the lease isn't in force.
func Renew(t Task, id string, now time.Time) (Task, error) {
	if !t.inForce(id, now) {
		return t, ErrLost
	}
	t.Expires, t.Begun = now.Add(Life), true
	return t, nil
}

// Complete returns a task that was done. It is no error where the same lease has completed it already: again is true then.
func Complete(t Task, id string, now time.Time) (done Task, again bool, err error) {
	switch {
	case t.inForce(id, now):
		return ended(t, nodeapi.TaskComplete, "", ""), false, nil
	case id != "" && t.Lease == id && t.State == nodeapi.TaskComplete:
		return t, true, nil
	}
	return t, false, ErrLost
}

// Fail is Complete for a task that wasn't done. One that was to be cancelled, and says that this is why, is cancelled.
func Fail(t Task, id string, code nodeapi.FailCode, text string, now time.Time) (failed Task, again bool, err error) {
	switch {
	case t.inForce(id, now):
		state := nodeapi.TaskFailed
		if t.State == nodeapi.TaskCancelling && code == nodeapi.FailCancelled {
			state = nodeapi.TaskCancelled
		}
		return ended(t, state, code, text), false, nil
	case id != "" && t.Lease == id && (t.State == nodeapi.TaskFailed || t.State == nodeapi.TaskCancelled):
		return t, true, nil
	}
	return t, false, ErrLost
}

// Cancel returns a task that an operator doesn't want any more: at an end at once if no node has it. One that is at its end
// stays as it is.
func Cancel(t Task) Task {
	switch t.State {
	case nodeapi.TaskPending:
		return ended(t, nodeapi.TaskCancelled, nodeapi.FailCancelled, "cancelled before it was begun")
	case nodeapi.TaskLeased:
		t.State = nodeapi.TaskCancelling
	case nodeapi.TaskCancelling, nodeapi.TaskComplete, nodeapi.TaskFailed, nodeapi.TaskCancelled:
	}
	return t
}

// Next returns which of a node's tasks it may have now, at most most: their places in tasks, which are those that haven't
// ended, in the order of their creation. Of those of nodeapi.ClassRoot only the first may be under way.
func Next(tasks []Task, most int) []int {
	var next []int
	rootBusy := false
	for i, t := range tasks {
		if t.State.Ended() {
			continue
		}
		traits, _ := t.Kind.Traits()
		root := traits.Class == nodeapi.ClassRoot
		if t.State == nodeapi.TaskPending && (!root || !rootBusy) && len(next) < most {
			next = append(next, i)
		}
		rootBusy = rootBusy || root
	}
	return next
}

// HandOut settles a node's tasks, which are those that haven't ended, in the order of their creation, and grants it at most most
// of them. holding are the leases that the node says it has: others are taken back; nil says nothing. It returns the tasks as they are
// then, and the places of those that were granted.
func HandOut(tasks []Task, holding []string, most int, now time.Time, newID func() string) (after []Task, granted []int) {
	after = make([]Task, len(tasks))
	for i, t := range tasks {
		if t = Settle(t, now); holding != nil && !slices.Contains(holding, t.Lease) {
			t = Settle(TakeBack(t), now)
		}
		after[i] = t
	}
	granted = Next(after, most)
	for _, i := range granted {
		after[i] = Grant(after[i], newID(), now)
	}
	return after, granted
}

// Wake returns when the first of the leases in force ends, and whether there is one: what waits for a task asks again then.
func Wake(tasks []Task) (at time.Time, some bool) {
	for _, t := range tasks {
		if held(t.State) && (!some || t.Expires.Before(at)) {
			at, some = t.Expires, true
		}
	}
	return at, some
}
