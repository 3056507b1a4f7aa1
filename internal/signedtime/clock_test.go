package signedtime

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

func fixed(t time.Time) func() time.Time { return func() time.Time { return t } }

// TestWrongClock: whatever the machine's clock says, the signed time is taken, and certificates are judged by it.
func TestWrongClock(t *testing.T) {
	ca := newAuthority(t, "CA", nil, nil)
	for _, off := range []time.Duration{-15 * year, 15 * year, 0} {
		t.Run(off.String(), func(t *testing.T) {
			p := newPlatform(t, ca, nil)
			elapsed := 100 * time.Second
			c := Open(t.TempDir(), Options{
				Floor: []time.Time{time.Now().Add(-30 * day), {}}, Wall: fixed(time.Now().Add(off)),
				Elapsed: func() time.Duration { return elapsed },
			})
			if c.Judges() || !c.Due() {
				t.Error("it judges before it knows")
			}
			if err := c.Ask(t.Context(), p.material(ca), nodehttp.Options{}); err != nil {
				t.Fatal(err)
			}
			if !c.Judges() || c.Due() || !about(c.Now(), time.Now()) {
				t.Errorf("%s, judges %t, due %t", c.Now(), c.Judges(), c.Due())
			}
			if err := get(t.Context(), p, ca, c); nodehttp.StatusOf(err) != http.StatusNotFound {
				t.Errorf("the judged connection: %v", err)
			}
			first := c.Now()
			elapsed += Again
			if got := c.Now(); !got.Equal(first.Add(Again)) || !c.Due() {
				t.Errorf("after %s: %s, due %t", Again, got, c.Due())
			}
			if r, ok := c.Signed(); !ok || !r.Time.Equal(first) {
				t.Errorf("%+v, %t", r, ok)
			}
		})
	}
}

// get makes a call over a connection that c judges.
func get(ctx context.Context, p *platform, ca *authority, c *Clock) error {
	conn, err := nodehttp.New(p.material(ca), nodehttp.Options{Now: c.Now})
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Do(ctx, nodehttp.Call{Doing: "try", Method: http.MethodGet, Path: "/"})
}

// TestEndedServerCertificate: a server whose certificate has ended by the signed time is asked for the time and for
// nothing else, though this machine's clock lies in the certificate's time.
func TestEndedServerCertificate(t *testing.T) {
	ca := newAuthority(t, "CA", nil, nil)
	then := time.Now().Add(-300 * day)
	p := newPlatform(t, ca, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = then.Add(-day), then.Add(day) })
	c := Open(t.TempDir(), Options{Wall: fixed(then)})
	if err := get(t.Context(), p, ca, c); nodehttp.StatusOf(err) != http.StatusNotFound {
		t.Fatalf("by the local clock: %v", err)
	}
	if err := c.Ask(t.Context(), p.material(ca), nodehttp.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := get(t.Context(), p, ca, c); !errors.Is(err, nodehttp.ErrValidity) || !strings.Contains(err.Error(), "certificate (CN=platform) ended at") {
		t.Errorf("by the signed time: %v", err)
	}
	if c.Due() {
		t.Error("it is due without a doubt")
	}
	c.Doubt()
	if !c.Due() {
		t.Error("a doubt makes no question")
	}
	if err := c.Ask(t.Context(), p.material(ca), nodehttp.Options{}); err != nil || c.Due() {
		t.Errorf("%v, due %t", err, c.Due())
	}
}

// TestFloor: what is past stays past, over restarts too.
func TestFloor(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	ca := newAuthority(t, "CA", nil, nil)
	p := newPlatform(t, ca, nil)
	dir := filepath.Join(t.TempDir(), "state", "powernode")
	open := func(wall time.Time, floor ...time.Time) *Clock {
		return Open(dir, Options{Floor: floor, Wall: fixed(wall)})
	}
	if c := open(time.Unix(0, 0), now.Add(-year), now.Add(-2*year)); !c.Now().Equal(now.Add(-year)) || len(c.Remarks()) != 0 {
		t.Fatalf("%s, %q", c.Now(), c.Remarks())
	}
	ask := func(c *Clock, at time.Time) error {
		p.at(fixed(at))
		return c.Ask(t.Context(), p.material(ca), nodehttp.Options{})
	}
	if err := ask(open(time.Unix(0, 0), now.Add(-year)), now); err != nil {
		t.Fatal(err)
	}
	c := open(time.Unix(0, 0))
	if !c.Now().Equal(now) || !c.Floor().Equal(now) {
		t.Fatalf("after a restart: %s", c.Now())
	}
	if got := open(now.Add(day)).Now(); !got.Equal(now.Add(day)) {
		t.Errorf("a clock beyond the floor: %s", got)
	}
	if err := ask(c, now.Add(-23*time.Hour)); err != nil || !about(c.Now(), now.Add(-23*time.Hour)) {
		t.Errorf("set back by less than a day: %s, %v", c.Now(), err)
	}
	// A platform whose clock was ahead, and was set right: each node that saw the wrong time goes on with it.
	back := now.Add(-100 * day)
	if err := ask(c, back); err != nil || !about(c.Now(), back) || !c.Floor().Equal(back) {
		t.Errorf("set back by more than a day: %s, floor %s, %v", c.Now(), c.Floor(), err)
	}
	if r := c.Remarks(); len(r) != 1 || !strings.Contains(r[0], "went back") {
		t.Errorf("remarks %q", r)
	}
	if got := open(time.Unix(0, 0)).Floor(); !got.Equal(back) {
		t.Errorf("after a restart the floor is %s", got)
	}
	// Another process has kept a later time meanwhile.
	if err := ask(open(now), now.Add(2*day)); err != nil {
		t.Fatal(err)
	}
	if err := ask(c, now.Add(day)); err != nil {
		t.Fatal(err)
	}
	if got := open(now).Floor(); !got.Equal(now.Add(2 * day)) {
		t.Errorf("the later time is lost: %s", got)
	}
	// Without a directory it is known as long as the process lives.
	c = Open("", Options{Wall: fixed(now)})
	if err := ask(c, now); err != nil || !c.Floor().Equal(now) {
		t.Errorf("%s, %v", c.Floor(), err)
	}
}

// TestContradictions: what no platform can say, and leaves the clock as it is.
func TestContradictions(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	short := newAuthority(t, "ends soon", nil, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-year), now.Add(day) })
	p := newPlatform(t, short, nil)
	for name, o := range map[string]struct{ source, seen time.Time }{
		"before the program was written": {source: now.Add(2 * day)},
		// Who has stolen the key of a CA after its end says that it hasn't ended.
		"by a CA that had ended": {source: now.Add(-year), seen: now.Add(3 * day)},
	} {
		dir := t.TempDir()
		if !o.seen.IsZero() {
			if err := writeSeen(dir, o.seen, false, nil); err != nil {
				t.Fatal(err)
			}
		}
		c := Open(dir, Options{Floor: []time.Time{o.source}, Wall: fixed(now)})
		before, floor := c.Now(), c.Floor()
		p.at(fixed(now))
		err := c.Ask(t.Context(), p.material(short), nodehttp.Options{})
		if fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "is past") || fault.HintOf(err) == "" {
			t.Errorf("%s: %v; %s", name, err, fault.HintOf(err))
		}
		if !c.Now().Equal(before) || !c.Floor().Equal(floor) || c.Judges() {
			t.Errorf("%s: after the refusal %s, floor %s", name, c.Now(), c.Floor())
		}
	}
}

func TestLocal(t *testing.T) {
	ca := newAuthority(t, "CA", nil, nil)
	p := newPlatform(t, ca, nil)
	now := time.Now()
	for wall, want := range map[time.Time]time.Time{now: now, now.Add(-15 * year): now.Add(-day), now.Add(15 * year): now.Add(15 * year)} {
		c := Open(t.TempDir(), Options{Local: true, Floor: []time.Time{now.Add(-day)}, Wall: fixed(wall)})
		if err := c.Ask(t.Context(), p.material(ca), nodehttp.Options{}); err != nil || p.asked.Load() != 0 {
			t.Fatalf("%v, asked %d times", err, p.asked.Load())
		}
		if !c.Judges() || c.Due() || !c.Now().Equal(want) {
			t.Errorf("%s: %s, want %s", wall, c.Now(), want)
		}
	}
}

// TestDamagedFile raises no floor, is remarked, and is mended by the next answer.
func TestDamagedFile(t *testing.T) {
	ca := newAuthority(t, "CA", nil, nil)
	p := newPlatform(t, ca, nil)
	build := time.Now().Add(-day)
	for name, content := range map[string]string{
		"empty": "", "torn": `{"version":1,"platform_t`, "noise": "\x00\x01", "one digit": `{"version":1,"platform_time":"3026-11-23T12:00:00Z","unix":1795435200}`,
		"other version": `{"version":2,"platform_time":"2026-11-23T12:00:00Z","unix":1795435200}`, "more": `{"version":1,"platform_time":"2026-11-23T12:00:00Z","unix":1795435200,"x":1}`,
		"huge": strings.Repeat(" ", seenMax+1), "two": `{"version":1}{}`, "another": `[]`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, seenName), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		c := Open(dir, Options{Floor: []time.Time{build}, Wall: fixed(time.Unix(0, 0))})
		if !c.Now().Equal(build) || len(c.Remarks()) != 1 || !strings.Contains(c.Remarks()[0], "clock.json") {
			t.Errorf("%s: %s, %q", name, c.Now(), c.Remarks())
		}
		if err := c.Ask(t.Context(), p.material(ca), nodehttp.Options{}); err != nil || len(c.Remarks()) != 0 {
			t.Errorf("%s: %v, %q", name, err, c.Remarks())
		}
		if c := Open(dir, Options{}); len(c.Remarks()) != 0 || !about(c.Floor(), time.Now()) {
			t.Errorf("%s, after an answer: %s, %q", name, c.Floor(), c.Remarks())
		}
	}
	// What isn't a file isn't waited for, nor followed.
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, seenName), 0o600); err != nil {
		t.Fatal(err)
	}
	if c := Open(dir, Options{}); len(c.Remarks()) != 1 {
		t.Errorf("%q", c.Remarks())
	}
	if c := Open(filepath.Join(dir, seenName, "below"), Options{}); len(c.Remarks()) != 1 {
		t.Errorf("%q", c.Remarks())
	}
}

// FuzzSeen: a file that was changed makes a remark or the time that it says twice.
func FuzzSeen(f *testing.F) {
	f.Add([]byte(`{"version":1,"platform_time":"2026-11-23T12:00:00Z","unix":1795435200}`))
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, seenName), content, 0o600); err != nil {
			t.Fatal(err)
		}
		c := Open(dir, Options{Floor: []time.Time{time.Unix(1e9, 0)}, Wall: fixed(time.Unix(0, 0))})
		if c.Now().Before(time.Unix(1e9, 0)) {
			t.Fatalf("below the floor: %s", c.Now())
		}
		if c.Floor().After(time.Unix(1e9, 0)) && !strings.Contains(string(content), strconv.FormatInt(c.Floor().Unix(), 10)) {
			t.Fatalf("%q makes %s", content, c.Floor())
		}
	})
}

// scenario keeps a second time. The platform outlives the process that is killed.
func scenario(t *testing.T) durabletest.Scenario {
	t.Helper()
	first, second := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)
	return durabletest.Scenario{
		Setup: func(t testing.TB, dir string) {
			if err := writeSeen(filepath.Join(dir, "state"), first, false, nil); err != nil {
				t.Fatal(err)
			}
		},
		Run: func(dir string, hook durable.Hook) error {
			return writeSeen(filepath.Join(dir, "state"), second, false, hook)
		},
		Check: func(t testing.TB, dir, op string, err error) {
			c := Open(filepath.Join(dir, "state"), Options{})
			if f := c.Floor(); len(c.Remarks()) != 0 || !f.Equal(first) && !f.Equal(second) {
				t.Errorf("at %q: %s, %q", op, f, c.Remarks())
			}
			if op == "" && err == nil && !c.Floor().Equal(second) {
				t.Errorf("in the end: %s", c.Floor())
			}
			if err := writeSeen(filepath.Join(dir, "state"), second, false, nil); err != nil {
				t.Errorf("at %q: the next: %v", op, err)
			}
		},
	}
}

func TestCrashes(t *testing.T) {
	t.Run("full disk", func(t *testing.T) { scenario(t).FailEach(t, syscall.ENOSPC) })
	t.Run("kill", func(t *testing.T) { scenario(t).KillEach(t) })
	t.Run("power cut", func(t *testing.T) { scenario(t).PowerCutEach(t) })
}

// TestFullDisk: a time that can't be kept is as good as another.
func TestFullDisk(t *testing.T) {
	ca := newAuthority(t, "CA", nil, nil)
	p := newPlatform(t, ca, nil)
	c := Open(t.TempDir(), Options{Hook: func(op string) error {
		if strings.HasPrefix(op, "clock:") {
			return syscall.ENOSPC
		}
		return nil
	}})
	if err := c.Ask(t.Context(), p.material(ca), nodehttp.Options{}); err != nil || !c.Judges() {
		t.Fatal(err)
	}
	if r := c.Remarks(); len(r) != 1 || !strings.Contains(r[0], "can't be kept") {
		t.Errorf("%q", r)
	}
}
