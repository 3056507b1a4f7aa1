package identity

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/secret"
)

// far is a place that has to be asked over the network.
type far struct {
	place
	here bool
}

func (f *far) Here() (bool, string) {
	if f.here {
		return true, "the firmware says so"
	}
	return false, "the firmware says something else"
}

func TestRemote(t *testing.T) {
	full := Found{InstanceID: uuid, Token: secret.New(token), PlatformURL: "https://a", CAPEM: []byte("ca")}
	part := Found{PlatformURL: "https://b"}
	at := func(name string, here bool, after time.Duration, found Found) *far {
		return &far{place{name: name, found: found, after: after}, here}
	}
	for _, c := range []struct {
		name     string
		near     Found
		far      []*far
		all      bool
		network  error
		statuses string
		waits    int // how often the network was waited for
		took     time.Duration
		url      string // the source of the URL
		reason   string
	}{
		{name: "nobody is here", far: []*far{at("x", false, 0, full), at("y", false, 0, full)}, statuses: "found absent absent", reason: "the firmware says something else"},
		{name: "complete already", near: full, far: []*far{at("x", true, 0, full)}, statuses: "found skipped", url: "near", reason: "nothing was missing any more"},
		{name: "all are asked", near: full, all: true, far: []*far{at("x", true, 0, full)}, statuses: "found found", url: "near", waits: 1, took: time.Minute},
		{
			name: "side by side, in their order", far: []*far{at("x", true, 3*time.Second, part), at("y", false, 0, full), at("z", true, 2*time.Second, full)},
			statuses: "found found absent found", waits: 1, took: time.Minute + 3*time.Second, url: "x",
		},
		{
			name: "one is deaf", far: []*far{{place{name: "x", after: time.Hour, deaf: true}, true}, at("z", true, 2*time.Second, full)},
			statuses: "found invalid found", waits: 1, took: time.Minute + 10*time.Second, url: "z",
		},
		{
			name: "no network", far: []*far{at("x", true, 0, full), at("z", true, 0, full)}, network: fault.New(fault.Retry, fault.Platform, "plug it in", "no cable"),
			statuses: "found invalid invalid", waits: 1, took: time.Minute, reason: "no cable",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sources := []Source{&place{name: "near", found: c.near}}
				for _, f := range c.far {
					sources = append(sources, f)
				}
				waits := 0
				start := time.Now()
				id, reports, err := Resolver{Sources: sources, All: c.all, BeforeRemote: func(context.Context) error {
					waits++
					time.Sleep(time.Minute) // isn't counted
					return c.network
				}}.Resolve(t.Context())
				if took := time.Since(start); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				var statuses []string
				for i, r := range reports {
					statuses = append(statuses, string(r.Status))
					if r.Source != sources[i].Name() {
						t.Errorf("report %d is of %s", i, r.Source)
					}
				}
				if got := strings.Join(statuses, " "); got != c.statuses || waits != c.waits || id.From.PlatformURL != c.url {
					t.Errorf("statuses %q, %d waits, URL from %q", got, waits, id.From.PlatformURL)
				}
				if last := reports[len(reports)-1].Reason; last != c.reason {
					t.Errorf("reason %q", last)
				}
				if (err == nil) != (c.url != "") {
					t.Error(err)
				}
				for i, f := range c.far {
					if asked := f.asked.Load() > 0; asked != (reports[i+1].Status == StatusFound || reports[i+1].Status == StatusInvalid && c.network == nil) {
						t.Errorf("%s was asked: %v", f.name, asked)
					}
				}
				time.Sleep(2 * time.Hour) // let the deaf one end
			})
		})
	}
}

// TestADriveHangs: a local source that takes all of the time leaves the cloud's its own. A cloud isn't waited for once a slow
// drive has said all.
func TestADriveHangs(t *testing.T) {
	full := Found{InstanceID: uuid, Token: secret.New(token), PlatformURL: "https://a", CAPEM: []byte("ca")}
	for _, c := range []struct {
		name      string
		drive     time.Duration
		answer    time.Duration
		network   time.Duration
		statuses  string
		took      time.Duration
		tokenFrom string
	}{
		{"hangs", time.Hour, 6 * time.Second, time.Minute, "invalid found", headStart + time.Minute + 6*time.Second, "x"},
		{"hangs longer than all else", time.Hour, time.Second, time.Second, "invalid found", 10 * time.Second, "x"},
		{"and the cloud too", time.Hour, time.Hour, time.Minute, "invalid invalid", 10*time.Second + time.Minute, ""},
		{"is slow", 7 * time.Second, time.Hour, time.Minute, "found skipped", 7 * time.Second, "near"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				id, reports, _ := Resolver{
					Sources: []Source{
						&place{name: "near", found: full, after: c.drive, deaf: true},
						&far{place{name: "x", found: full, after: c.answer, deaf: true}, true},
					},
					BeforeRemote: func(ctx context.Context) error {
						select {
						case <-time.After(c.network):
						case <-ctx.Done():
						}
						return ctx.Err()
					},
				}.Resolve(t.Context())
				if took := time.Since(start); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				if got := string(reports[0].Status + " " + reports[1].Status); got != c.statuses || id.From.Token != c.tokenFrom {
					t.Errorf("statuses %q, token from %q", got, id.From.Token)
				}
				time.Sleep(2 * time.Hour) // let the deaf ones end
			})
		})
	}
}

func TestOnlyTokenMissing(t *testing.T) {
	tok := secret.New(token)
	for name, c := range map[string]struct {
		id   Identity
		want bool
	}{
		"nothing":                  {Identity{}, false},
		"all":                      {Identity{PlatformURL: "u", CAPEM: []byte("c"), Token: tok}, false},
		"no token":                 {Identity{PlatformURL: "u", CAPEM: []byte("c")}, true},
		"no token, a fingerprint":  {Identity{PlatformURL: "u", CASHA256: []string{"x"}}, true},
		"no token, a URL":          {Identity{PlatformURL: "u", CAURL: CAURL{"x"}}, false},
		"neither token nor URL":    {Identity{CAPEM: []byte("c")}, false},
		"a URL without the rest":   {Identity{PlatformURL: "u"}, false},
		"a token without the rest": {Identity{Token: tok}, false},
	} {
		if got := c.id.OnlyTokenMissing(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestClockOfSeveralSources: a source after that of the CA can't have the machine's own clock count.
func TestClockOfSeveralSources(t *testing.T) {
	ca := caPEM(t)
	for _, c := range []struct {
		name   string
		raws   []Raw
		from   string
		reason string // of the last source
	}{
		{"beside the CA", []Raw{{CA: ca, Clock: "local"}, {Clock: "platform"}}, "a", ""},
		{"before the CA", []Raw{{Clock: "local"}, {CA: ca}}, "a", ""},
		{"after the CA", []Raw{{CA: ca}, {Clock: "local"}}, "", "its clock is passed over"},
		{"after the fingerprint", []Raw{{CASHA256: fingerprintOf(t, ca)}, {CA: ca, Clock: "local"}}, "", "its clock is passed over"},
		{"beside the fingerprint", []Raw{{CASHA256: fingerprintOf(t, ca), Clock: "local"}, {CA: ca}}, "a", ""},
	} {
		var id Identity
		reason := ""
		for i, raw := range c.raws {
			found, err := raw.Check("x", nil)
			if err != nil {
				t.Fatal(err)
			}
			reason = id.add(string(rune('a'+i)), found)
		}
		if id.From.Clock != c.from || (id.Clock == "") != (c.from == "") || !strings.HasPrefix(reason, c.reason) || (reason == "") != (c.reason == "") {
			t.Errorf("%s: %q from %q, %q", c.name, id.Clock, id.From.Clock, reason)
		}
	}
}

// TestAnchorsOfSeveralSources: what was said of the CA first decides.
func TestAnchorsOfSeveralSources(t *testing.T) {
	ca, other := caPEM(t), caPEM(t)
	mark := func(p string) string { return fingerprintOf(t, p) }
	for _, c := range []struct {
		name   string
		raws   []Raw
		ca     string // what CAPEM is
		prints int
		reason string // of the last source
	}{
		{"a bundle before a fingerprint", []Raw{{CA: ca}, {CASHA256: mark(other)}}, ca, 0, ""},
		{"a fingerprint before its certificate", []Raw{{CASHA256: mark(ca)}, {CA: other + ca}}, ca, 1, ""},
		{"a fingerprint before another's certificate", []Raw{{CASHA256: mark(ca)}, {CA: other}}, "", 1, "its CA is passed over"},
		{"a fingerprint before another", []Raw{{CASHA256: mark(ca)}, {CASHA256: mark(other)}}, "", 1, ""},
		{"both of one", []Raw{{CA: ca + other, CASHA256: mark(ca)}, {CA: other}}, ca, 1, ""},
	} {
		var id Identity
		reason := ""
		for i, raw := range c.raws {
			found, err := raw.Check("x", nil)
			if err != nil {
				t.Fatal(err)
			}
			reason = id.add(string(rune('a'+i)), found)
		}
		if string(id.CAPEM) != c.ca || len(id.CASHA256) != c.prints || !strings.HasPrefix(reason, c.reason) || (reason == "") != (c.reason == "") {
			t.Errorf("%s: %d bytes, %v, %q", c.name, len(id.CAPEM), id.CASHA256, reason)
		}
	}
	// A URL alone is no CA.
	_, _, err := Resolver{Sources: []Source{&place{name: "a", found: Found{PlatformURL: "https://a", Token: secret.New(token), CAURL: CAURL{"https://x/"}}}}}.Resolve(t.Context())
	if err == nil || !strings.Contains(err.Error(), "fingerprint") || errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}
