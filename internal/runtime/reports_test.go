package runtime

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// bootLog is a node's boots, and the platform that is told of them.
type bootLog struct {
	mu      sync.Mutex
	pending []nodeapi.BootReport
	err     error // of Pending
	down    error // of BootReport
	refused string
	told    []string
	asked   int
}

// with looks at, or changes, what the loop uses.
func (b *bootLog) with(do func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	do()
}

func (b *bootLog) Pending() ([]nodeapi.BootReport, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]nodeapi.BootReport(nil), b.pending...), b.err
}

func (b *bootLog) Acknowledged(r nodeapi.BootReport) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, p := range b.pending {
		if p.BootID == r.BootID {
			b.pending = append(b.pending[:i], b.pending[i+1:]...)
			return nil
		}
	}
	return errors.New("nothing was pending")
}

func (b *bootLog) BootReport(_ context.Context, r nodeapi.BootReport) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	if r.BootID == b.refused {
		return fault.New(fault.Refuse, fault.Platform, "", "send a boot report: %w", &nodehttp.StatusError{Status: http.StatusUnprocessableEntity})
	}
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
		late, ended := time.Now(), make(chan struct{})
		go func() {
			defer close(ended)
			b.loop(&log).Run(ctx, func(d time.Duration) {
				if time.Now().After(late.Add(time.Second)) {
					t.Errorf("late by %s", time.Since(late))
				}
				late = time.Now().Add(d)
			})
		}()
		time.Sleep(time.Hour)
		synctest.Wait()
		b.with(func() {
			if len(b.told) != 0 || b.asked < 10 || b.asked > 100 {
				t.Errorf("told %v, asked %d times", b.told, b.asked)
			}
			b.down = nil
		})
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		b.with(func() {
			if strings.Join(b.told, " ") != "1 2" {
				t.Errorf("told %v", b.told)
			}
			b.pending, b.err = []nodeapi.BootReport{{BootID: "3"}}, errors.New("one journal can't be read")
		})
		time.Sleep(5 * time.Minute)
		cancel()
		synctest.Wait()
		<-ended
		if strings.Join(b.told, " ") != "1 2 3" || !strings.Contains(log.String(), "one journal can't be read") {
			t.Errorf("told %v\n%s", b.told, log.String())
		}
		if n := strings.Count(log.String(), "no answer"); n != 1 {
			t.Errorf("%d warnings about one outage", n)
		}
	})
}

// TestBootReportsOfAnOldPlatform that knows no boots: it is asked seldom.
func TestBootReportsOfAnOldPlatform(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bootLog{pending: []nodeapi.BootReport{{BootID: "1"}}, down: fault.New(fault.Refuse, fault.Platform, "", "404")}
		ctx, cancel := context.WithCancel(t.Context())
		go b.loop(new(strings.Builder)).Run(ctx, func(time.Duration) {})
		time.Sleep(24 * time.Hour)
		b.with(func() {
			if b.asked > 25 {
				t.Errorf("asked %d times in a day", b.asked)
			}
		})
		cancel()
		synctest.Wait()
	})
}

// TestBootReportThatIsRefused: it keeps no other boot from being told at once, and is seldom told itself.
func TestBootReportThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bootLog{pending: []nodeapi.BootReport{{BootID: "1"}, {BootID: "2"}}, refused: "1"}
		ctx, cancel := context.WithCancel(t.Context())
		var log strings.Builder
		go b.loop(&log).Run(ctx, func(time.Duration) {})
		time.Sleep(time.Minute)
		synctest.Wait()
		b.with(func() { b.pending = append(b.pending, nodeapi.BootReport{BootID: "3"}) })
		time.Sleep(time.Minute)
		synctest.Wait()
		b.with(func() {
			if strings.Join(b.told, " ") != "2 3" || len(b.pending) != 1 {
				t.Errorf("told %v, pending %v", b.told, b.pending)
			}
		})
		time.Sleep(24 * time.Hour)
		cancel()
		synctest.Wait()
		if again := b.asked - len(b.told); again < 20 || again > 26 {
			t.Errorf("sent %d times in a day", again)
		}
		if !strings.Contains(log.String(), "boot 1: ") {
			t.Errorf("log: %s", log.String())
		}
	})
}

// TestBesideTheHeartbeat: a loop of another package runs with the service, and its panic ends nothing else.
func TestBesideTheHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ran := 0
		c := Config{
			Platform: quiet{}, State: quiet{}, Proc: t.TempDir(), Sys: t.TempDir(),
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
