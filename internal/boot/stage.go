package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Stage is one step of the boot.
type Stage struct {
	// Name is one word, the same on the console, in the journal of the boot and in documents.
	Name string
	// Deadline bounds the stage.
	Deadline time.Duration
	// Run does the work and returns what it did, for one console line.
	Run func(ctx context.Context) (string, error)
}

// StageRecord is what the journal of the boot keeps of a stage.
type StageRecord struct {
	Name string `json:"name"`
	// Millis is how long the stage took, in milliseconds.
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

// runStages runs stages in order, one console line each, and stops at the first that fails, with
// a *StageError. The records hold every stage that was begun.
func runStages(ctx context.Context, console io.Writer, stages []Stage) ([]StageRecord, error) {
	var records []StageRecord
	begun := time.Now()
	for i, stage := range stages {
		if err := ctx.Err(); err != nil {
			return records, &StageError{stage.Name, err} // interrupted: not all stages look
		}
		start := time.Now()
		result, err := runStage(ctx, stage)
		record := StageRecord{Name: stage.Name, Millis: time.Since(start).Milliseconds(), Result: result}
		if err != nil {
			record.Error = err.Error()
			// The reason is in the error, which the caller prints.
			fmt.Fprintf(console, "[%7.3f] %d/%d %s: failed\n", time.Since(begun).Seconds(), i+1, len(stages), stage.Name)
			return append(records, record), &StageError{stage.Name, err}
		}
		records = append(records, record)
		fmt.Fprintf(console, "[%7.3f] %d/%d %s: %s\n", time.Since(begun).Seconds(), i+1, len(stages), stage.Name, fault.OneLine(result))
	}
	return records, nil
}

// runStage runs one stage under its deadline. Passing it is a retry: the next boot may be faster.
func runStage(ctx context.Context, stage Stage) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, stage.Deadline)
	defer cancel()
	result, err := stage.Run(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return result, fault.New(fault.Retry, fault.AreaOf(err), fault.HintOf(err), "not done within %s: %w", stage.Deadline, err)
	}
	return result, err
}
