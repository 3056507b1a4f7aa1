package runtime

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// bootLog is a node's boots, and the platform that is told of them.
type bootLog struct {
	pending []nodeapi.BootReport
	err     error // of Pending
	down    error // of BootReport
	told    []string
	asked   int
}

func (b *bootLog) Pending() ([]nodeapi.BootReport, error) {
	return append([]nodeapi.BootReport(nil), b.pending...), b.err
}

func (b *bootLog) Acknowledged(r nodeapi.BootReport) error {
	for i, p := range b.pending {
		if p.BootID == r.BootID {
			b.pending = append(b.pending[:i], b.pending[i+1:]...)
			return nil
		}
	}
	return errors.New("nothing was pending")
}

func (b *bootLog) BootReport(_ context.Context, r nodeapi.BootReport) error {
	b.asked++
	if b.down == nil {
		b.told = append(b.told, r.BootID)
	}
	return b.down
}

func (b *bootLog) loop(log *strings.Builder) BootReports {
	return BootReports{Source: b, Platform: b, Log: slog.New(slog.NewTextHandler(log, nil)), Rand: func() float64 { return 0.5 }}
}

// TestBootReports: every boot is told until it is acknowledged, oldest first, and what comes later too.
func TestBootReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bootLog{pending: []nodeapi.BootReport{{BootID: "1"}, {BootID: "2"}}, down: fault.New(fault.Retry, fault.Platform, "wait", "no answer")}
		ctx, cancel := context.WithCancel(t.Context())
		var log strings.Builder
		late := time.Now()
		go b.loop(&log).Run(ctx, func(d time.Duration) {
			if time.Now().After(late.Add(time.Second)) {
				t.Errorf("late by %s", time.Since(late))
			}
			late = time.Now().Add(d)
		})
		time.Sleep(time.Hour)
		if len(b.told) != 0 || b.asked < 10 || b.asked > 100 {
			t.Errorf("told %v, asked %d times", b.told, b.asked)
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings about one outage", n)
		}
		b.down = nil
		time.Sleep(5 * time.Minute)
		if strings.Join(b.told, " ") != "1 2" {
			t.Errorf("told %v", b.told)
		}
		b.pending, b.err = []nodeapi.BootReport{{BootID: "3"}}, errors.New("one journal can't be read")
		time.Sleep(5 * time.Minute)
		if strings.Join(b.told, " ") != "1 2 3" || !strings.Contains(log.String(), "one journal can't be read") {
			t.Errorf("told %v\n%s", b.told, log.String())
		}
		cancel()
		synctest.Wait()
	})
}

// TestBootReportsOfAnOldPlatform that knows no boots: it is asked seldom.
func TestBootReportsOfAnOldPlatform(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bootLog{pending: []nodeapi.BootReport{{BootID: "1"}}, down: fault.New(fault.Refuse, fault.Platform, "", "404")}
		ctx, cancel := context.WithCancel(t.Context())
		go b.loop(new(strings.Builder)).Run(ctx, func(time.Duration) {})
		time.Sleep(24 * time.Hour)
		if b.asked > 25 {
			t.Errorf("asked %d times in a day", b.asked)
		}
		cancel()
		synctest.Wait()
	})
}

// TestBesideTheHeartbeat: a loop of another package runs with the service, and its panic ends nothing else.
func TestBesideTheHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ran := 0
		c := Config{
			Platform: quiet{}, State: quiet{}, Proc: t.TempDir(),
			Beside: []Loop{
				loop(func(context.Context, func(time.Duration)) { panic("a defect") }),
				loop(func(ctx context.Context, alive func(time.Duration)) {
					for ctx.Err() == nil {
						alive(time.Minute)
						ran++
						select {
						case <-ctx.Done():
						case <-time.After(time.Minute):
						}
					}
				}),
			},
			Remarks: func() []string { return []string{"something is damaged"} },
		}
		if hb := newHeartbeat(c, Facts{}, State{}); len(hb.Remarks) != 1 {
			t.Errorf("remarks %q", hb.Remarks)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := New(c).Run(ctx); err != nil || ran < 50 {
			t.Errorf("ran %d times, %v", ran, err)
		}
		synctest.Wait()
	})
}

type loop func(context.Context, func(time.Duration))

func (l loop) Run(ctx context.Context, alive func(time.Duration)) { l(ctx, alive) }

// quiet is a platform that acknowledges, and a node of which nothing is known.
type quiet struct{}

func (quiet) Heartbeat(context.Context, nodeapi.Heartbeat) (*nodeapi.HeartbeatResponse, error) {
	return &nodeapi.HeartbeatResponse{Acknowledged: true, NextPollSeconds: 30}, nil
}

func (quiet) State(context.Context) (State, error) { return State{}, nil }
