package runtime

import (
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestNextInterval(t *testing.T) {
	s := time.Second
	for _, c := range []struct {
		name   string
		o      Outcome
		lo, hi time.Duration // for the least and the greatest chance
	}{
		{"as asked", Outcome{NextPollSeconds: 30}, 27 * s, 33 * s},
		{"nothing asked", Outcome{}, 27 * s, 33 * s},
		{"odd", Outcome{NextPollSeconds: -7}, 27 * s, 33 * s},
		{"too often", Outcome{NextPollSeconds: 1}, 5 * s, 5 * s},
		{"too seldom", Outcome{NextPollSeconds: 1 << 40}, 270 * s, 300 * s},
		{"first failure", Outcome{Failures: 1}, 5 * s, 10 * s},
		{"second", Outcome{Failures: 2}, 10 * s, 20 * s},
		{"third", Outcome{Failures: 3}, 20 * s, 40 * s},
		{"many", Outcome{Failures: 1 << 40}, 60 * s, 120 * s},
		{"many refusals", Outcome{Failures: 99, Refused: true}, 150 * s, 300 * s},
		{"asked to wait", Outcome{Failures: 1, RetryAfter: 60 * s}, 60 * s, 72 * s},
		{"asked to wait a little", Outcome{Failures: 9, RetryAfter: s}, 60 * s, 120 * s},
		{"put off by a platform whose heartbeats are seldom", Outcome{Failures: 1, RetryAfter: 599 * s}, 599 * s, 599 * s * 6 / 5},
		{"asked to wait for ever", Outcome{Failures: 1, RetryAfter: time.Hour}, 600 * s, 720 * s},
	} {
		if lo, hi := NextInterval(c.o, 0), NextInterval(c.o, 1); lo != c.lo || hi != c.hi {
			t.Errorf("%s: %v to %v, want %v to %v", c.name, lo, hi, c.lo, c.hi)
		}
	}
}

func TestNextIntervalIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Outcome{
			Failures: rapid.IntRange(0, 1<<62).Draw(t, "failures"), Refused: rapid.Bool().Draw(t, "refused"),
			NextPollSeconds: rapid.Int().Draw(t, "next"), RetryAfter: time.Duration(rapid.Int64().Draw(t, "after")),
		}
		if d := NextInterval(o, rapid.Float64Range(0, 1).Draw(t, "chance")); d < MinInterval || d > 2*MaxInterval*6/5 {
			t.Fatalf("%+v: %v", o, d)
		}
	})
}

func TestReadFacts(t *testing.T) {
	f, err := ReadFacts(proc(t))
	want := Facts{BootID: bootID, Uptime: 4711280 * time.Millisecond, LoadAverage: "0.12 0.08 0.01", MemoryAvailableKB: 3911484}
	if f != want || err != nil {
		t.Errorf("%+v, %v", f, err)
	}
	// This machine's own.
	f, err = ReadFacts("/proc")
	if err != nil || f.BootID == "" || f.Uptime <= 0 || f.LoadAverage == "" || f.MemoryAvailableKB <= 0 {
		t.Errorf("%+v, %v", f, err)
	}
	f, err = ReadFacts("/nonexistent")
	if f != (Facts{}) || err == nil {
		t.Errorf("%+v, %v", f, err)
	}
	for _, name := range []string{"boot_id", "uptime", "loadavg", "meminfo"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s isn't named in %v", name, err)
		}
	}
}

func TestParseFacts(t *testing.T) {
	for _, c := range []struct {
		parse func(string, *Facts) error
		bad   []string
	}{
		{parseBootID, []string{"", "x", strings.Repeat("z", 36), strings.Repeat("a", 37)}},
		{parseUptime, []string{"", "x", "-1 2", "NaN", "1e300", "Inf"}},
		{parseLoadAverage, []string{"", "1 2", "1 2 x", "1 -2 3", "NaN 1 2", strings.Repeat("9", 20) + " 1 1"}},
		{parseMeminfo, []string{"", "MemFree: 1 kB", "MemAvailable:", "MemAvailable: 1", "MemAvailable: x kB", "MemAvailable: -1 kB", "MemAvailable: 1 MB"}},
	} {
		for _, text := range c.bad {
			if f := (Facts{}); c.parse(text, &f) == nil || f != (Facts{}) {
				t.Errorf("%q was read as %+v", text, f)
			}
		}
	}
}

func FuzzFacts(f *testing.F) {
	for _, name := range []string{"/proc/sys/kernel/random/boot_id", "/proc/uptime", "/proc/loadavg", "/proc/meminfo"} {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(string(b))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		var facts Facts
		for _, parse := range []func(string, *Facts) error{parseBootID, parseUptime, parseLoadAverage, parseMeminfo} {
			_ = parse(text, &facts)
		}
		if facts.Uptime < 0 || facts.MemoryAvailableKB < 0 || len(facts.LoadAverage) > 60 || len(facts.BootID) > 36 {
			t.Fatalf("%q gives %+v", text, facts)
		}
	})
}
