package task

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// outside is what a crash of the node leaves alone: the platform's word of one task, and how often its effect was seen. It lies
// beside the journal so that it is what it was when the power was cut.
type outside struct {
	State   nodeapi.TaskState
	Lease   int
	Begun   bool
	Attempt int
	Code    nodeapi.FailCode
	Effects int
}

func (o *outside) load(dir string) error {
	d, err := durable.OpenDir(dir, nil)
	if err != nil {
		return err
	}
	defer d.Close()
	*o = outside{State: nodeapi.TaskPending, Attempt: 1}
	if err := d.ReadJSON("outside", 1<<10, o); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (o *outside) save(dir string) error {
	d, err := durable.OpenDir(dir, nil)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.WriteJSON("outside", o, 0o600, "outside")
}

// live is an agent's life, from its start until there is nothing to do: an error of the disk ends it at once.
func live(dir string, hook durable.Hook, kind nodeapi.TaskKind) error {
	j, err := OpenJournal(filepath.Join(dir, "tasks"), hook)
	if err != nil {
		return err
	}
	defer j.Close()
	records, err := j.Load()
	if err != nil {
		return err
	}
	var o outside
	if err := o.load(dir); err != nil {
		return err
	}
	now := epoch
	desk := NewDesk(now, Settings{Handlers: modelHandlers, Boot: "boot", Once: true, Chance: func() float64 { return 0 }}, records)
	for range 1000 {
		a := desk.Next(now)
		id, lease := a.Record.Task.ID, a.Record.Task.Lease
		inForce := func() Answer {
			if o.State != nodeapi.TaskLeased || lease != strconv.Itoa(o.Lease) {
				return Answer{Verdict: Lost}
			}
			return Answer{Verdict: OK, LeaseTime: time.Minute}
		}
		switch a.Do {
		case Stop:
			return nil
		case Wait:
			if a.At.IsZero() {
				return errors.New("it waits for nothing")
			}
			now = a.At
			continue
		case Save:
			if err := j.Save(a.Record); err != nil {
				return err
			}
			desk.Saved(now, id, false, nil)
			continue
		case Lease:
			var tasks []Task
			if o.State == nodeapi.TaskLeased && (len(a.Holding) == 0 || a.Holding[0] != strconv.Itoa(o.Lease)) {
				if o.State = nodeapi.TaskPending; o.Begun {
					o.Attempt++
				}
			}
			if o.State == nodeapi.TaskPending {
				o.State, o.Begun, o.Lease = nodeapi.TaskLeased, false, o.Lease+1
				tasks = append(tasks, Task{ID: "t", Lease: strconv.Itoa(o.Lease), Kind: kind, Attempt: o.Attempt, LeaseTime: time.Minute})
			}
			if err := o.save(dir); err != nil {
				return err
			}
			err = desk.Leased(now, now, tasks, Answer{Verdict: OK})
		case Renew, Tell:
			answer := inForce()
			o.Begun = o.Begun || answer.Verdict == OK
			err = o.save(dir)
			desk.Answered(now, now, id, lease, answer)
		case Begin:
			o.Effects++
			err = o.save(dir)
			desk.Finished(now, id, Finish{})
		case Report:
			answer := inForce()
			if answer.Verdict == OK {
				if o.State, o.Code = nodeapi.TaskComplete, a.Record.Outcome.Code; !a.Record.Outcome.Success {
					o.State = nodeapi.TaskFailed
				}
			}
			err = o.save(dir)
			desk.Reported(now, id, lease, answer)
		case Forget, End, Restart:
			err = errors.New("nobody asked for that")
		}
		if err != nil {
			return err
		}
	}
	return errors.New("it never ends")
}

// TestCrashes: at each labelled operation of a task's whole life the node is stopped, by a fault, a kill or a power cut, and
// started again. The task comes to an end, and what may be done once is.
func TestCrashes(t *testing.T) {
	for _, kind := range []nodeapi.TaskKind{kindOnce, kindAgain} {
		t.Run(string(kind), func(t *testing.T) {
			s := durabletest.Scenario{
				Setup: func(t testing.TB, dir string) {
					j := openJournal(t, filepath.Join(dir, "tasks"))
					if err := j.Close(); err != nil {
						t.Fatal(err)
					}
				},
				Run: func(dir string, hook durable.Hook) error { return live(dir, hook, kind) },
				Check: func(t testing.TB, dir, op string, _ error) {
					if err := live(dir, nil, kind); err != nil {
						t.Fatal(err)
					}
					var o outside
					if err := o.load(dir); err != nil {
						t.Fatal(err)
					}
					interrupted := o.State == nodeapi.TaskFailed && o.Code == nodeapi.FailInterrupted
					switch {
					case kind == kindOnce && (o.Effects > 1 || o.State != nodeapi.TaskComplete && !interrupted || o.State == nodeapi.TaskComplete && o.Effects != 1),
						kind == kindAgain && (o.Effects < 1 || o.Effects > 2 || o.State != nodeapi.TaskComplete),
						op == "" && (o.Effects != 1 || o.State != nodeapi.TaskComplete):
						t.Errorf("after a fault at %q: %+v", op, o)
					}
				},
			}
			t.Run("EIO", func(t *testing.T) { s.FailEach(t, unix.EIO) })
			t.Run("kill", s.KillEach)
			t.Run("power cut", s.PowerCutEach)
		})
	}
}
