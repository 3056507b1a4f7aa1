package boot

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Stage is one step of the boot.
type Stage struct {
	// Name is one word, the same on the console, in the journal of the boot and in documents.
	Name string
	// Deadline bounds the stage.
	Deadline time.Duration
	// Run does the work and returns what it did, for one console line. It may be called again after a
	// failure of its own or of a later stage, and then does only what isn't done.
	Run func(ctx context.Context) (string, error)
}

// StageRecord is what the journal of the boot keeps of a stage.
type StageRecord struct {
	Name string `json:"name"`
	// Begun is when the stage began, on the clock of the journal's lines, and Millis how long it
	// took, both in milliseconds.
	Begun  int64  `json:"begun_ms"`
	Millis int64  `json:"duration_ms"`
	Result string `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
}

// StageError says which stage ended the boot.
type StageError struct {
	Stage string
	Err   error
}

// Error returns "boot stage NAME: cause".
func (e *StageError) Error() string { return "boot stage " + e.Stage + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *StageError) Unwrap() error { return e.Err }

// errBreak says that the boot was told to stop before a stage.
var errBreak = errors.New("the kernel command line says powernode.break")

// course is the stages of a boot, and how they are run.
type course struct {
	stages []Stage
	voice  *voice
	// breakAt is the stage to stop before, once; "" for none.
	breakAt string
	// await are what stages wait for before they begin, for as long as it takes: no deadline counts.
	await map[string]func(ctx context.Context) error
	// stuck is told of a stage that didn't end at its deadline either, because the kernel doesn't come back to it;
	// nil for nobody.
	stuck func(stage string)
}

// stuckAfter is how long after its deadline a stage counts as stuck.
const stuckAfter = 2 * time.Minute

// watched runs do and tells stuck of it unless it ends in time.
func (c *course) watched(name string, deadline time.Duration, do func()) {
	if c.stuck != nil {
		defer time.AfterFunc(deadline+stuckAfter, func() { c.stuck(name) }).Stop()
	}
	do()
}

// index returns the place of a stage in the course; the first one's for a name that isn't there.
func (c *course) index(name string) int {
	return max(0, slices.IndexFunc(c.stages, func(s Stage) bool { return s.Name == name }))
}

// run runs the stages from one on, in order, one console line each, and stops at the first that
// fails, with a *StageError. A break is one that wraps errBreak, before the stage has begun.
func (c *course) run(ctx context.Context, from int) error {
	for i, stage := range c.stages[from:] {
		i += from
		if err := ctx.Err(); err != nil {
			return &StageError{stage.Name, err} // interrupted: not all stages look
		}
		if stage.Name == c.breakAt {
			c.breakAt = ""
			return &StageError{stage.Name, errBreak}
		}
		j := c.voice.journal
		record := StageRecord{Name: stage.Name, Begun: j.clock().Milliseconds()}
		start := time.Now()
		var result string
		var err error
		if await := c.await[stage.Name]; await != nil {
			_, err = guarded(func() (string, error) { return "", await(ctx) })
		}
		if err == nil {
			c.watched(stage.Name, stage.Deadline, func() { result, err = runStage(ctx, stage) })
		}
		record.Millis = time.Since(start).Milliseconds()
		record.Result = fault.OneLine(result)
		say := record.Result
		if err != nil {
			// The reason is in the error, which the caller prints.
			say, record.Error = "failed", fault.OneLine(err.Error())
		}
		j.stage(record)
		c.voice.say("[%7.3f] %d/%d %s: %s", j.clock().Seconds(), i+1, len(c.stages), stage.Name, say)
		if err != nil {
			return &StageError{stage.Name, err}
		}
	}
	return nil
}

// runStage runs one stage under its deadline. Passing it is a retry: another run may be faster.
func runStage(ctx context.Context, stage Stage) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, stage.Deadline)
	defer cancel()
	result, err := guarded(func() (string, error) { return stage.Run(ctx) })
	if err != nil && ctx.Err() != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return result, fault.New(fault.Retry, fault.AreaOf(err), fault.HintOf(err), "not done within %s: %w", stage.Deadline, err)
	}
	return result, err
}

// guarded turns a panic into an error of kind Broken that says where it was: a first process that
// ends takes the machine with it.
func guarded(do func() (string, error)) (result string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault.New(fault.Broken, fault.General, "report this", "internal error: %v, at %s", p, panicPlace(debug.Stack()))
		}
	}()
	return do()
}

// panicPlace returns the file and line that panicked, from a stack as the runtime prints it: two
// lines for each frame, those of the runtime first.
func panicPlace(stack []byte) string {
	lines := strings.Split(string(stack), "\n")
	at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "panic(") })
	for i := at + 2; at >= 0 && i+1 < len(lines); i += 2 {
		if !strings.HasPrefix(lines[i], "runtime.") {
			place, _, _ := strings.Cut(strings.TrimSpace(lines[i+1]), " +0x")
			return place
		}
	}
	return fmt.Sprintf("an unknown place (%d bytes of stack)", len(stack))
}
