package network

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errSilent = errors.New("nobody answers")

// fakeServer answers a keeper by the clock of a synctest bubble, and notes what it was asked and when.
type fakeServer struct {
	begun   time.Time
	expire  time.Duration // of the leases that it gives
	answers []error       // one for each question; nil when they are used up
	asked   []string

	mu     sync.Mutex
	before []*lease
}

func (f *fakeServer) answer(what string) (*lease, error) {
	f.asked = append(f.asked, what+" "+time.Since(f.begun).String())
	if len(f.answers) > 0 {
		err := f.answers[0]
		f.answers = f.answers[1:]
		if errors.Is(err, errDefect) {
			panic(err)
		}
		if err != nil {
			return nil, err
		}
	}
	l := &lease{source: SourceDHCP, address: netip.MustParsePrefix("10.0.0.7/24"), granted: time.Now()}
	if f.expire != 0 {
		l.times(0, 0, f.expire)
	}
	return l, nil
}

func (f *fakeServer) obtain(_ context.Context, before *lease) (*lease, error) {
	f.mu.Lock()
	f.before = append(f.before, before)
	f.mu.Unlock()
	return f.answer("obtain")
}

// askedAgain returns the leases that were asked for again while the keepers go on; nil is one that asks for a new one.
func (f *fakeServer) askedAgain() []*lease {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.before)
}

func (f *fakeServer) renew(_ context.Context, _ *lease, rebind bool) (*lease, error) {
	if rebind {
		return f.answer("rebind")
	}
	return f.answer("renew")
}

// keepFor runs a keeper for d and returns what it reported.
func keepFor(t *testing.T, f *fakeServer, d time.Duration) []report {
	t.Helper()
	var got []report
	synctest.Test(t, func(t *testing.T) {
		f.begun = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		reports := make(chan report)
		done := make(chan struct{})
		k := &keeper{exchange: f, reports: reports}
		go func() {
			defer close(done)
			k.run(ctx)
		}()
		for {
			select {
			case r := <-reports:
				got = append(got, r)
			case <-done:
				return
			}
		}
	})
	return got
}

func TestKeeperRenews(t *testing.T) {
	f := &fakeServer{expire: time.Hour}
	got := keepFor(t, f, 70*time.Minute)
	if want := []string{"obtain 0s", "renew 30m0s", "renew 1h0m0s"}; !slices.Equal(f.asked, want) {
		t.Errorf("asked %q, want %q", f.asked, want)
	}
	for _, r := range got {
		if r.lease == nil || r.err != nil {
			t.Errorf("%+v", r)
		}
	}
}

func TestKeeperRebindsThenStartsAgain(t *testing.T) {
	f := &fakeServer{expire: time.Hour, answers: append([]error{nil}, slices.Repeat([]error{errSilent}, 12)...)}
	got := keepFor(t, f, 70*time.Minute)
	// T1 is 30 min, T2 52.5 min; half of what is left between two questions, a minute at least.
	want := []string{
		"obtain 0s", "renew 30m0s", "renew 41m15s", "renew 46m52.5s", "renew 49m41.25s", "renew 51m5.625s", "renew 52m5.625s",
		"rebind 52m30s", "rebind 56m15s", "rebind 58m7.5s", "rebind 59m7.5s", "obtain 1h0m1s",
	}
	if len(f.asked) < len(want) || !slices.Equal(f.asked[:len(want)], want) {
		t.Errorf("asked %q,\nwant %q", f.asked, want)
	}
	if lost := got[1]; lost.lease != nil || !errors.Is(lost.err, errSilent) || !errors.Is(lost.err, errEnded) {
		t.Errorf("%+v", lost)
	}
	if f.before[1] == nil {
		t.Error("the address that it had isn't asked for again")
	}
}

func TestKeeperGivesUpAnAddressThatIsTakenBack(t *testing.T) {
	f := &fakeServer{expire: time.Hour, answers: []error{nil, errGone}}
	got := keepFor(t, f, 40*time.Minute)
	if want := []string{"obtain 0s", "renew 30m0s", "obtain 30m1s"}; !slices.Equal(f.asked, want) {
		t.Errorf("asked %q, want %q", f.asked, want)
	}
	if len(got) != 3 || got[1].lease != nil || !errors.Is(got[1].err, errGone) || got[2].lease == nil || f.before[1] != nil {
		t.Errorf("%+v, before %v", got, f.before)
	}
}

func TestKeeperPausesLongerAndLonger(t *testing.T) {
	f := &fakeServer{answers: slices.Repeat([]error{errSilent}, 9)}
	got := keepFor(t, f, 24*time.Hour)
	want := []string{"obtain 0s", "obtain 1s", "obtain 3s", "obtain 7s", "obtain 15s", "obtain 31s", "obtain 1m3s", "obtain 2m3s", "obtain 3m3s", "obtain 4m3s"}
	if !slices.Equal(f.asked, want) {
		t.Errorf("asked %q, want %q", f.asked, want)
	}
	// A lease without an end isn't asked for again.
	if last := got[len(got)-1]; last.lease == nil || !last.lease.until().IsZero() {
		t.Errorf("%+v", last)
	}
}
