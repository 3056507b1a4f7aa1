package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/secret"
)

// place is a source that says what it is told to, after a while.
type place struct {
	name  string
	found Found
	err   error
	after time.Duration
	deaf  bool         // ignores its context
	asked atomic.Int32 // a deaf source is still at work when it is left behind
}

func (p *place) Name() string { return p.name }

func (p *place) Find(ctx context.Context) (Found, error) {
	p.asked.Add(1)
	done := ctx.Done()
	if p.deaf {
		done = nil
	}
	select {
	case <-time.After(p.after):
		return p.found, p.err
	case <-done:
		return Found{}, context.Cause(ctx)
	}
}

func TestResolve(t *testing.T) {
	const otherID = "11111111-2222-3333-4444-555555555555"
	tok := secret.New(token)
	full := Found{InstanceID: uuid, Token: tok, PlatformURL: "https://a", CAPEM: []byte("ca")}
	without := func(alter func(*Found)) Found { f := full; alter(&f); return f }
	none := func(n string) *place { return &place{name: n, err: NotFound("there is no such file")} }
	for _, c := range []struct {
		name     string
		sources  []*place
		all      bool
		from     Provenance
		statuses string
		reason   string // of the last source
		begun    string // the sources that were skipped after they had been asked
		err      string
		hint     string
	}{
		{
			name: "first says all", sources: []*place{{name: "a", found: full}, {name: "b", found: full}},
			from: Provenance{InstanceID: "a", Token: "a", PlatformURL: "a", CA: "a"}, statuses: "found skipped",
		},
		{
			name: "all are asked", all: true, sources: []*place{{name: "a", found: full}, {name: "b", found: full}, none("c")},
			from: Provenance{InstanceID: "a", Token: "a", PlatformURL: "a", CA: "a"}, statuses: "found found absent",
		},
		{
			name: "field by field", sources: []*place{
				none("a"),
				{name: "b", found: Found{PlatformURL: "https://b"}},
				{name: "c", err: errors.New("line 3 is damaged")},
				{name: "d", found: full},
			},
			from: Provenance{InstanceID: "d", Token: "d", PlatformURL: "b", CA: "d"}, statuses: "absent found invalid found",
		},
		{
			name: "no instance is no want", sources: []*place{{name: "a", found: without(func(f *Found) { f.InstanceID = "" })}, none("b")},
			from: Provenance{InstanceID: "", Token: "a", PlatformURL: "a", CA: "a"}, statuses: "found skipped",
		},
		{
			name: "another instance's token", sources: []*place{
				{name: "a", found: Found{InstanceID: uuid}}, {name: "b", found: without(func(f *Found) { f.InstanceID = otherID })},
			},
			from: Provenance{InstanceID: "a", Token: "", PlatformURL: "b", CA: "b"}, statuses: "found found", reason: "its token is passed over: it is for instance " + otherID,
			err: "no bootstrap token (a: gives instance_id; b: its token is passed over", hint: "identity.cfg on the boot partition",
		},
		{
			name: "another token's instance", sources: []*place{
				{name: "a", found: without(func(f *Found) { f.InstanceID, f.PlatformURL = "", "" })},
				{name: "b", found: Found{InstanceID: otherID, Token: secret.New("another-token-012345"), PlatformURL: "https://b"}},
			},
			from: Provenance{Token: "a", PlatformURL: "b", CA: "a"}, statuses: "found found", reason: "its instance " + otherID + " is passed over",
		},
		{
			name: "an instance beside a nameless token", sources: []*place{
				{name: "a", found: without(func(f *Found) { f.InstanceID, f.PlatformURL = "", "" })}, {name: "b", found: Found{InstanceID: uuid, PlatformURL: "https://b"}},
			},
			from: Provenance{InstanceID: "b", Token: "a", PlatformURL: "b", CA: "a"}, statuses: "found found",
		},
		{
			name: "a nameless token", sources: []*place{{name: "a", found: Found{InstanceID: uuid}}, {name: "b", found: without(func(f *Found) { f.InstanceID = "" })}},
			from: Provenance{InstanceID: "a", Token: "b", PlatformURL: "b", CA: "b"}, statuses: "found found",
		},
		{
			name: "nobody", sources: []*place{none("a"), none("b")}, statuses: "absent absent",
			err: "find out who this node is: no platform URL, no CA certificate, no bootstrap token (a, b: there is no such file)", hint: "--identity-file",
			reason: "there is no such file",
		},
		{
			name: "no source", err: "no platform URL", hint: "--identity-file",
		},
		{
			name: "a damaged one", sources: []*place{{name: "a", err: fault.New(fault.Refuse, fault.Input, "give it as https", "SERVER: http")}, none("b")}, statuses: "invalid absent",
			err: "(a: SERVER: http; b: ", hint: "correct what a says: give it as https", reason: "there is no such file",
		},
		{
			name: "slow and deaf ones", sources: []*place{
				{name: "a", after: 2 * time.Second, found: Found{PlatformURL: "https://a"}}, {name: "b", after: time.Hour, deaf: true, found: full}, {name: "c", after: time.Second, found: full},
			},
			from: Provenance{PlatformURL: "a", InstanceID: "c", Token: "c", CA: "c"}, statuses: "found invalid found",
		},
		{
			name: "slow ones are waited for, and go first", sources: []*place{
				{name: "a", after: 8 * time.Second, found: full}, {name: "b", after: 8 * time.Second, found: full}, {name: "c", after: 12 * time.Second, deaf: true, found: full},
			},
			from: Provenance{InstanceID: "a", Token: "a", PlatformURL: "a", CA: "a"}, statuses: "found skipped skipped", begun: "b c",
		},
		{
			name: "all are too slow", sources: []*place{{name: "a", after: time.Minute}, {name: "b", after: time.Hour, deaf: true}, {name: "c", after: 9 * time.Second, found: full}},
			statuses: "invalid invalid invalid", err: "a, b, c: no answer within 10s", hint: "correct what c says", reason: "no answer within 10s",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var sources []Source
				for _, p := range c.sources {
					sources = append(sources, p)
				}
				start := time.Now()
				id, reports, err := Resolver{Sources: sources, All: c.all}.Resolve(t.Context())
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("took %v", took)
				}
				if d := cmp.Diff(c.from, id.From); d != "" {
					t.Error(d)
				}
				var statuses []string
				for i, r := range reports {
					statuses = append(statuses, string(r.Status))
					if asked := r.Status != StatusSkipped || strings.Contains(c.begun, r.Source); (c.sources[i].asked.Load() == 1) != asked && r.Reason != "no answer within 10s" {
						t.Errorf("%s was asked %d times", r.Source, c.sources[i].asked.Load())
					}
				}
				if got := strings.Join(statuses, " "); got != c.statuses {
					t.Errorf("statuses %q, want %q", got, c.statuses)
				}
				if n := len(reports); c.reason != "" && !strings.HasPrefix(reports[n-1].Reason, c.reason) {
					t.Errorf("reason %q, want %q", reports[n-1].Reason, c.reason)
				}
				switch {
				case c.err == "" && err != nil:
					t.Error(err)
				case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(fault.HintOf(err), c.hint) || fault.KindOf(err) != fault.Refuse):
					t.Errorf("got %v (hint %q), want %q, %q", err, fault.HintOf(err), c.err, c.hint)
				}
				time.Sleep(2 * time.Hour) // let the deaf one end
			})
		})
	}
}

// TestRefused: a token that the platform refused, and the instance that goes with it, count for nothing; what else its source says does.
func TestRefused(t *testing.T) {
	used, good := secret.New("used-long-ago-0123456789"), secret.New(token)
	sources := []Source{
		&place{name: "a", found: Found{InstanceID: "11111111-2222-3333-4444-555555555555", Token: used, PlatformURL: "https://a", CAPEM: []byte("ca")}},
		&place{name: "b", found: Found{InstanceID: uuid, Token: good, PlatformURL: "https://b"}},
	}
	r := Resolver{Sources: sources, Refused: used.Equal}
	id, reports, err := r.Resolve(t.Context())
	if err != nil || !id.Token.Equal(good) || id.InstanceID != uuid || id.PlatformURL != "https://a" || id.From.CA != "a" {
		t.Errorf("%+v, %v", id, err)
	}
	if want := "its token is passed over: the platform refused it"; reports[0].Reason != want {
		t.Errorf("reason %q", reports[0].Reason)
	}
	r.Sources = sources[:1]
	if id, _, err = r.Resolve(t.Context()); err == nil || !id.OnlyTokenMissing() || !strings.Contains(err.Error(), "no bootstrap token (a: its token is passed over") {
		t.Errorf("%+v, %v", id, err)
	}
}

// TestEndToEnd reads real files in the usual layout and shows that no output holds the token.
func TestEndToEnd(t *testing.T) {
	cfg := write(t, "identity.cfg", "KEY="+token+"\nSERVER=https://p.example\nID="+uuid+"\n")
	sources := []Source{Cmdline{write(t, "cmdline", "quiet powernode.platform_url=https://c.example")}, FWCfg{"/nonexistent"}, File{cfg}}
	id, reports, err := Resolver{Sources: sources}.Resolve(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no CA certificate (cmdline: gives platform_url; fw_cfg: there is no /nonexistent") {
		t.Errorf("error %v", err)
	}
	if id.InstanceID != uuid || id.Token.Reveal() != token || id.PlatformURL != "https://c.example" || id.From.PlatformURL != "cmdline" || id.From.Token != "file:"+cfg {
		t.Errorf("identity %+v", id)
	}
	var out strings.Builder
	slog.New(slog.NewJSONHandler(&out, nil)).Info("identity", "id", id, "reports", reports)
	slog.New(slog.NewTextHandler(&out, nil)).Info("identity", "id", &id, "error", err)
	fmt.Fprintf(&out, "%v %+v %#v %v", id, id, id, err)
	if err := json.NewEncoder(&out).Encode(map[string]any{"identity": id, "sources": reports}); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Contains(got, token) || !strings.Contains(got, secret.Redacted) || !strings.Contains(got, uuid) {
		t.Errorf("the token shows, or nothing does:\n%s", got)
	}
}
