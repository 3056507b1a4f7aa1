package runtime

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestChore: it is done at once, often at first, and once more at the end; a difficulty is logged once.
func TestChore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		times, fail := 0, error(nil)
		set := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			fail = err
		}
		count := func() int {
			mu.Lock()
			defer mu.Unlock()
			return times
		}
		var log strings.Builder
		c := Chore{Name: "sweep", Soon: 10 * time.Second, Every: 2 * time.Minute, Last: true, Log: slog.New(slog.NewTextHandler(&log, nil)), Do: func(ctx context.Context) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			if ctx.Err() != nil {
				t.Error("it is done with a context that has ended")
			}
			times++
			return false, fail
		}}
		ctx, cancel := context.WithCancel(t.Context())
		promised, ended := time.Now(), make(chan struct{})
		go func() {
			defer close(ended)
			c.Run(ctx, func(d time.Duration) {
				if late := time.Since(promised); late > 0 {
					t.Errorf("late by %s", late)
				}
				promised = time.Now().Add(d)
			})
		}()
		// after lets time pass, and checks how often it was done since it looked before.
		had := 0
		after := func(d time.Duration, want int) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			got := count()
			if got-had != want {
				t.Errorf("done %d times in %s, not %d", got-had, d, want)
			}
			had = got
		}
		after(time.Second, 1)
		after(choreSettling, 30)
		set(errors.New("no broom"))
		after(10*time.Minute, 5)
		if got := strings.Count(log.String(), "can't sweep"); got != 1 || !strings.Contains(log.String(), "no broom") {
			t.Errorf("the log: %s", &log)
		}
		set(nil)
		after(2*time.Minute, 1)
		set(errors.New("no broom"))
		after(2*time.Minute, 1)
		if got := strings.Count(log.String(), "can't sweep"); got != 2 {
			t.Errorf("what comes again is logged %d times", got)
		}
		cancel()
		<-ended
		if got := count() - had; got != 1 {
			t.Errorf("done %d times at the end", got)
		}
	})
}

// TestChoreEnds: one that is done isn't done again, and one that isn't wanted at the end isn't done then.
func TestChoreEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		times := 0
		do := func(context.Context) (bool, error) { times++; return times == 3, nil }
		Chore{Name: "sweep", Every: time.Minute, Last: true, Do: do}.Run(t.Context(), func(time.Duration) {})
		if times != 3 {
			t.Errorf("done %d times", times)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(150*time.Second, cancel)
		times = 10
		Chore{Name: "sweep", Every: time.Minute, Do: do}.Run(ctx, func(time.Duration) {})
		if times != 13 {
			t.Errorf("done %d times", times-10)
		}
	})
}
