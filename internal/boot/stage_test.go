package boot

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

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
	records, err := runStages(context.Background(), &console, []Stage{stage("identify", nil), stage("verify", refused), stage("mount", nil)})
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
		_, err := runStages(context.Background(), &bytes.Buffer{}, []Stage{slow})
		if fault.KindOf(err) != fault.Retry || fault.AreaOf(err) != fault.Platform || !strings.Contains(err.Error(), "not done within 3s") {
			t.Errorf("%v: %v", fault.KindOf(err), err)
		}
	})
}

func TestAnInterruptedStageIsNotADeadline(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	_, err := runStages(ctx, &bytes.Buffer{}, []Stage{{"fetch", time.Minute, func(ctx context.Context) (string, error) {
		cancel()
		<-ctx.Done()
		return "", ctx.Err()
	}}})
	if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "not done within") {
		t.Errorf("%v", err)
	}
}
