package boot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// newCourse returns a course of stages that says what it does on w.
func newCourse(w io.Writer, stages ...Stage) *course {
	begun := time.Now()
	return &course{stages: stages, voice: &voice{w: w, journal: &journal{clock: func() time.Duration { return time.Since(begun) }}}}
}

func TestStagesStopAtTheFirstFailure(t *testing.T) {
	var ran []string
	stage := func(name string, err error) Stage {
		return Stage{name, time.Minute, func(context.Context) (string, error) {
			ran = append(ran, name)
			return "did " + name, err
		}}
	}
	refused := fault.New(fault.Refuse, fault.Verify, "sign it", "module x isn't signed")
	var console bytes.Buffer
	c := newCourse(&console, stage("identify", nil), stage("verify", refused), stage("mount", nil))
	err := c.run(context.Background(), 0)
	records := c.voice.journal.doc.Stages
	var at *StageError
	if !errors.As(err, &at) || at.Stage != "verify" || !errors.Is(err, refused) || fault.HintOf(err) != "sign it" {
		t.Fatalf("error %v", err)
	}
	if strings.Join(ran, " ") != "identify verify" {
		t.Errorf("ran %v", ran)
	}
	if len(records) != 2 || records[0].Result != "did identify" || records[1].Error != "module x isn't signed" {
		t.Errorf("records %+v", records)
	}
	if !strings.Contains(console.String(), "1/3 identify: did identify\n") || !strings.Contains(console.String(), "2/3 verify: failed\n") {
		t.Errorf("console %q", console.String())
	}
}

func TestAStagePastItsDeadlineIsARetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := Stage{"fetch", 3 * time.Second, func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", fault.New(fault.Refuse, fault.Platform, "check the network", "get modules: %w", ctx.Err())
		}}
		err := newCourse(&bytes.Buffer{}, slow).run(context.Background(), 0)
		if fault.KindOf(err) != fault.Retry || fault.AreaOf(err) != fault.Platform || !strings.Contains(err.Error(), "not done within 3s") {
			t.Errorf("%v: %v", fault.KindOf(err), err)
		}
	})
}

func TestAnInterruptedStageIsNotADeadline(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	err := newCourse(&bytes.Buffer{}, Stage{"fetch", time.Minute, func(ctx context.Context) (string, error) {
		cancel()
		<-ctx.Done()
		return "", ctx.Err()
	}}).run(ctx, 0)
	if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "not done within") {
		t.Errorf("%v", err)
	}
}

// TestStagesGoOn from the one that failed, and what was done isn't done again.
func TestStagesGoOn(t *testing.T) {
	var ran []string
	broken := errors.New("broken")
	stage := func(name string, errs ...error) Stage {
		return Stage{name, time.Minute, func(context.Context) (string, error) {
			ran = append(ran, name)
			if len(errs) == 0 {
				return "", nil
			}
			err := errs[0]
			errs = errs[1:]
			return "", err
		}}
	}
	c := newCourse(io.Discard, stage("identify"), stage("fetch", broken, nil), stage("mount"))
	c.breakAt = "mount"
	if err := c.run(t.Context(), 0); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if err := c.run(t.Context(), c.index("fetch")); !errors.Is(err, errBreak) || stageOf(err) != "mount" {
		t.Fatal(err)
	}
	if err := c.run(t.Context(), c.index("mount")); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(ran, " "); got != "identify fetch fetch mount" || c.index("nowhere") != 0 {
		t.Errorf("ran %s", got)
	}
}

// TestAPanicIsAnError that says where it was: a first process must not end.
func TestAPanicIsAnError(t *testing.T) {
	var none map[string]int
	err := newCourse(io.Discard, Stage{"compose", time.Minute, func(context.Context) (string, error) {
		none["x"]++
		return "", nil
	}}).run(t.Context(), 0)
	if fault.KindOf(err) != fault.Broken || stageOf(err) != "compose" || !strings.Contains(err.Error(), "nil map") || !strings.Contains(err.Error(), "stage_test.go:") {
		t.Errorf("%v", err)
	}
}
