package claim_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity/claim"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

const (
	mac      = "52:54:00:12:34:56"
	instance = "30b88bae-0dfc-400a-89a7-164e0138d179"
	token    = "n0GmqvG1YVqXbU5Fqk3v3mXv1mB8b7VnV2m1gY0oT9A"
)

// console is what a person at the machine sees.
type console struct {
	shown []string
	said  []string
	waits []time.Duration
}

// fake is a platform of which each answer is given beforehand: a status and a body, or a nodeapi.ClaimResponse.
type fake struct {
	t       *testing.T
	answers []any
	asked   []nodeapi.ClaimRequest
	ca      *pkitest.CA
	url     string
}

func newFake(t *testing.T, answers ...any) *fake {
	f := &fake{t: t, answers: answers, ca: pkitest.NewCA(t, "CA")}
	f.url = f.ca.Serve(f.ca.Web(), f, nil).URL
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in nodeapi.ClaimRequest
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Method != http.MethodPost || r.URL.Path != nodeapi.PathClaim {
		f.t.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
	f.asked = append(f.asked, in)
	if len(f.answers) == 0 {
		f.t.Error("asked once more than expected")
		w.WriteHeader(http.StatusGone)
		return
	}
	next := f.answers[0]
	f.answers = f.answers[1:]
	switch a := next.(type) {
	case int:
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(a)
	case string:
		if a == "cut" {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write([]byte(a))
	case nodeapi.ClaimResponse:
		data, _ := json.Marshal(a)
		body, _ := json.Marshal(nodeapi.Envelope{Success: true, Data: data})
		_, _ = w.Write(body)
	}
}

// options are those of a machine before that platform.
func options(dir, url string, caPEM []byte, c *console) claim.Options {
	return claim.Options{
		Dir: dir, PlatformURL: url,
		Connect: func(context.Context) (*nodehttp.Conn, error) {
			cas, err := nodehttp.ParseCAs(caPEM)
			if err != nil {
				return nil, err
			}
			return nodehttp.New(&nodehttp.Material{PlatformURL: url, CAs: cas}, nodehttp.Options{})
		},
		Machine: claim.Machine{MAC: mac, MACs: []string{mac}, Hostname: "shelf-3", Architecture: "amd64", AgentVersion: "v1"},
		Show:    func(s claim.Sign) { c.shown = append(c.shown, s.Code) },
		Say:     func(format string, args ...any) { c.said = append(c.said, fault.OneLine(fmt.Sprintf(format, args...))) },
		Backoff: nodehttp.Backoff{First: time.Millisecond, Max: time.Millisecond},
		Sleep:   func(ctx context.Context, d time.Duration) error { c.waits = append(c.waits, d); return ctx.Err() },
	}
}

func pending(code string, after int) nodeapi.ClaimResponse {
	return nodeapi.ClaimResponse{Status: nodeapi.ClaimPending, PollAfterSeconds: after, ClaimCode: code}
}

func claimed() nodeapi.ClaimResponse {
	return nodeapi.ClaimResponse{Status: nodeapi.ClaimClaimed, PollAfterSeconds: 30, BootstrapToken: token, InstanceUUID: instance}
}

func run(t *testing.T, f *fake, dir string) (claim.Claimed, *console, error) {
	t.Helper()
	var c console
	got, err := claim.Run(t.Context(), options(dir, f.url, f.ca.PEM(), &c))
	if len(f.answers) != 0 {
		t.Errorf("%d answers weren't asked for", len(f.answers))
	}
	return got, &c, err
}

// TestRun goes through outages, a change of the code, and a rejection that the operator took back.
func TestRun(t *testing.T) {
	f := newFake(
		t, 500, "cut", 503, 429, pending("ABCDEFGH", 10), pending("ABCDEFGH", 10), pending("HGFEDCBA", 10),
		nodeapi.ClaimResponse{Status: nodeapi.ClaimError, PollAfterSeconds: 300, Message: "rejected\x1b[2J\nby the operator"},
		nodeapi.ClaimResponse{Status: nodeapi.ClaimError, PollAfterSeconds: 300, Message: "rejected\x1b[2J\nby the operator"},
		nodeapi.ClaimResponse{Status: "frozen", PollAfterSeconds: 7}, pending("HGFEDCBA", 10), 500, pending("HGFEDCBA", 10), claimed(),
	)
	dir := filepath.Join(t.TempDir(), "state")
	got, c, err := run(t, f, dir)
	if err != nil || got.Token.Reveal() != token || got.InstanceID != instance || got.PlatformURL != f.url {
		t.Fatalf("%+v, %v", got, err)
	}
	// Shown anew where lines were said since.
	if want := []string{"ABCDEFGH", "HGFEDCBA", "HGFEDCBA", "HGFEDCBA"}; !slices.Equal(c.shown, want) {
		t.Errorf("shown %v, want %v", c.shown, want)
	}
	said := strings.Join(c.said, "\n")
	for want, times := range map[string]int{"the platform says: rejected [2J by the operator": 1, "answered 500 ": 2, "answered 503 ": 1, "answered 429 ": 1, `"frozen" isn't known`: 1, "it becomes node " + instance: 1} {
		if strings.Count(said, want) != times {
			t.Errorf("%q isn't there %d times in\n%s", want, times, said)
		}
	}
	if strings.Contains(said, token) || strings.ContainsAny(said, "\x1b") {
		t.Error(said)
	}
	for i, in := range f.asked {
		if in.ClaimKey != f.asked[0].ClaimKey || len(in.ClaimKey) != 64 || in.MAC != mac || in.Hostname != "shelf-3" || in.Architecture != "amd64" {
			t.Errorf("request %d: %+v", i, in)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "claim.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := claim.Settle(dir, nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "claim.json")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := errors.Join(claim.Settle(dir, nil, nil), claim.Settle(filepath.Join(dir, "none"), nil, nil)); err != nil {
		t.Error(err)
	}
}

// TestPace checks the bounds of what a platform may ask a machine to wait.
func TestPace(t *testing.T) {
	f := newFake(t, pending("ABCDEFGH", 0), pending("ABCDEFGH", -5), pending("ABCDEFGH", 30), pending("ABCDEFGH", 1<<40), claimed())
	_, c, err := run(t, f, t.TempDir())
	if err != nil || len(c.waits) != 4 {
		t.Fatalf("%v, %v", c.waits, err)
	}
	for i, least := range []time.Duration{5 * time.Second, 5 * time.Second, 30 * time.Second, 10 * time.Minute} {
		if c.waits[i] < least || c.waits[i] > least+least/10 {
			t.Errorf("wait %d of %s, want %s and up to a tenth more", i, c.waits[i], least)
		}
	}
}

// TestRestart checks that a restart goes on with the claim, wherever it comes, and another platform or machine doesn't.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	f := newFake(t, pending("ABCDEFGH", 10))
	ctx, cancel := context.WithCancel(t.Context())
	var c console
	o := options(dir, f.url, f.ca.PEM(), &c)
	o.Sleep = func(ctx context.Context, _ time.Duration) error { cancel(); return ctx.Err() }
	if _, err := claim.Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	f.answers = []any{pending("ABCDEFGH", 10), claimed()}
	if _, _, err := run(t, f, dir); err != nil {
		t.Fatal(err)
	}
	key := f.asked[0].ClaimKey
	if f.asked[2].ClaimKey != key {
		t.Error("a restart made another key")
	}

	// The token is on the disk: its claim being over, it was used, and the answer lost.
	f.answers = []any{nodeapi.ClaimResponse{Status: nodeapi.ClaimExpired}}
	got, _, err := run(t, f, dir)
	if err != nil || got.Token.Reveal() != token || got.InstanceID != instance {
		t.Fatalf("%+v, %v", got, err)
	}
	// A failure on the way leaves it, a refusal takes it away, and then the claim is over.
	if err := claim.Settle(dir, errors.New("the network is down"), nil); err != nil {
		t.Fatal(err)
	}
	f.answers = []any{nodeapi.ClaimResponse{Status: nodeapi.ClaimExpired}}
	if got, _, err = run(t, f, dir); err != nil || got.Token.Reveal() != token {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := claim.Settle(dir, &nodehttp.StatusError{Status: http.StatusUnprocessableEntity, Code: nodeapi.CodeTokenRefused}, nil); err != nil {
		t.Fatal(err)
	}
	f.answers = []any{nodeapi.ClaimResponse{Status: nodeapi.ClaimExpired}, pending("HGFEDCBA", 10), claimed()}
	if _, _, err = run(t, f, dir); err != nil {
		t.Fatal(err)
	}
	last := f.asked[len(f.asked)-1]
	if last.ClaimKey == key {
		t.Error("a claim that was over is gone on with")
	}

	// The same link, though another has the default route now.
	again := func(alter func(*claim.Options)) nodeapi.ClaimRequest {
		t.Helper()
		f.answers = []any{claimed()}
		o := options(dir, f.url, f.ca.PEM(), &console{})
		alter(&o)
		if _, err := claim.Run(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		return f.asked[len(f.asked)-1]
	}
	if in := again(func(o *claim.Options) {
		o.Machine.MAC, o.Machine.MACs = "52:54:00:00:00:01", []string{"52:54:00:00:00:01", mac}
	}); in != last {
		t.Errorf("%+v, before %+v", in, last)
	}
	// A copied disk is another machine, and so is a damaged file.
	if in := again(func(o *claim.Options) { o.Machine.MAC, o.Machine.MACs = "52:54:00:00:00:01", nil }); in.ClaimKey == last.ClaimKey || in.MAC != "52:54:00:00:00:01" {
		t.Errorf("%+v", in)
	}
	for _, text := range []string{"", "{", `{"version":1,"mac":"x","claim_key":"00"}`, `{"version":2}`, strings.Repeat("x", 1<<20), `{"version":1,"mac":"x","bootstrap_token":"\u001b"}`} {
		if err := os.WriteFile(filepath.Join(dir, "claim.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if in := again(func(*claim.Options) {}); len(in.ClaimKey) != 64 || in.ClaimKey == last.ClaimKey {
			t.Errorf("%.40q: %+v", text, in)
		}
	}
	other := newFake(t, claimed())
	if _, _, err := run(t, other, dir); err != nil {
		t.Fatal(err)
	}
	if other.asked[0].ClaimKey == f.asked[len(f.asked)-1].ClaimKey {
		t.Error("one platform's key was shown to another")
	}
}

// TestRefused checks which answers end the waiting, and with what remedy.
func TestRefused(t *testing.T) {
	with := func(alter func(*nodeapi.ClaimResponse)) nodeapi.ClaimResponse { a := claimed(); alter(&a); return a }
	for _, tc := range []struct {
		name   string
		answer any
		kind   fault.Kind
		want   string
		hint   string
	}{
		{"no such path", 404, fault.Refuse, "takes in no machines by claim codes", "bootstrap token"},
		{"bad request", 400, fault.Refuse, "400", "bring agent and platform to one version"},
		{"forbidden", 403, fault.Refuse, "403", "bootstrap token"},
		{"not a platform", "<html>", fault.Broken, "isn't a node_api answer", "proxy"},
		{"code", pending("ABCDEFG0", 10), fault.Broken, `code "ABCDEFG0" isn't one`, "log"},
		{"no code", pending("", 10), fault.Broken, "isn't one", "log"},
		{"hostile code", pending("\x1b[2J\n", 10), fault.Broken, `"[2J" isn't one`, "log"},
		{"token", with(func(a *nodeapi.ClaimResponse) { a.BootstrapToken = "short" }), fault.Broken, "token has 16 to 512", "log"},
		{"instance", with(func(a *nodeapi.ClaimResponse) { a.InstanceUUID = "x" }), fault.Broken, "isn't a UUID", "log"},
		{"other instance", with(func(a *nodeapi.ClaimResponse) { a.InstanceUUID = strings.Replace(instance, "3", "4", 1) }), fault.Refuse, "is to be " + instance, "accept it for that node"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t, tc.answer)
			o := options(t.TempDir(), f.url, f.ca.PEM(), &console{})
			o.InstanceID = instance
			got, err := claim.Run(t.Context(), o)
			if err == nil || fault.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.want) || !strings.Contains(fault.HintOf(err), tc.hint) {
				t.Errorf("%+v, %v (%v, hint %q)", got, err, fault.KindOf(err), fault.HintOf(err))
			}
		})
	}
	f := newFake(t)
	o := options(t.TempDir(), f.url, f.ca.PEM(), &console{})
	o.Machine = claim.Machine{}
	if _, err := claim.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "no hardware address") {
		t.Error(err)
	}
	if _, err := claim.Run(t.Context(), options(t.TempDir(), f.url, pkitest.NewCA(t, "Other").PEM(), &console{})); err == nil || len(f.asked) != 0 {
		t.Errorf("a platform of another CA was asked: %v", err)
	}
}

// TestPlatformURL checks that a platform can't send a machine elsewhere.
func TestPlatformURL(t *testing.T) {
	for _, says := range []string{"/base", "https://elsewhere.example", "http://127.0.0.1", "https://u:p@127.0.0.1", "https://127.0.0.1:1", "nonsense"} {
		f := newFake(t)
		answer, want := claimed(), f.url
		if answer.PlatformURL = says; strings.HasPrefix(says, "/") {
			answer.PlatformURL = f.url + says
			want = answer.PlatformURL
		}
		f.answers = []any{answer}
		dir := t.TempDir()
		got, c, err := run(t, f, dir)
		if err != nil || got.PlatformURL != want || strings.Contains(strings.Join(c.said, " "), "calls itself") != (want == f.url) {
			t.Errorf("%s: %+v, %v, %q", says, got, err, c.said)
		}
		f.answers = []any{nodeapi.ClaimResponse{Status: nodeapi.ClaimExpired}}
		if again, _, err := run(t, f, dir); err != nil || again.PlatformURL != want || !again.Token.Equal(got.Token) {
			t.Errorf("%s, after a restart: %+v, %v", says, again, err)
		}
	}
}

// TestOneAtATime checks that two agents of a machine don't take each other's tokens away.
func TestOneAtATime(t *testing.T) {
	f := newFake(t, pending("ABCDEFGH", 10), claimed())
	dir := t.TempDir()
	o := options(dir, f.url, f.ca.PEM(), &console{})
	o.Show = func(claim.Sign) {
		if _, err := claim.Run(t.Context(), options(dir, f.url, f.ca.PEM(), &console{})); err == nil {
			t.Error("two ask at once")
		}
	}
	if _, err := claim.Run(t.Context(), o); err != nil || len(f.asked) != 2 {
		t.Errorf("%v, asked %d times", err, len(f.asked))
	}
}

// TestConnectAgain checks that a connection is judged anew after each failure, and that a failure of that is waited for.
func TestConnectAgain(t *testing.T) {
	f := newFake(t, 500, claimed())
	o := options(t.TempDir(), f.url, f.ca.PEM(), &console{})
	connect, times := o.Connect, 0
	o.Connect = func(ctx context.Context) (*nodehttp.Conn, error) {
		if times++; times == 1 {
			return nil, fault.New(fault.Retry, fault.Platform, "wait", "the platform's time isn't known")
		}
		return connect(ctx)
	}
	if got, err := claim.Run(t.Context(), o); err != nil || times != 3 || got.Token.IsZero() {
		t.Errorf("%+v, %v, connected %d times", got, err, times)
	}
	o.Connect = func(context.Context) (*nodehttp.Conn, error) {
		return nil, fault.New(fault.Refuse, fault.Platform, "", "the platform signs no time")
	}
	if _, err := claim.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "signs no time") {
		t.Error(err)
	}
}

func FuzzSettle(f *testing.F) {
	f.Add([]byte(`{"version":1,"asked_url":"https://p","mac":"x","claim_key":"` + strings.Repeat("a", 64) + `","bootstrap_token":"` + token + `"}`))
	f.Add([]byte(`{`))
	refused := &nodehttp.StatusError{Status: http.StatusUnprocessableEntity, Code: nodeapi.CodeTokenRefused}
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, "claim.json")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := claim.Settle(dir, refused, nil); err != nil {
			t.Fatal(err)
		}
		if err := claim.Settle(dir, nil, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Fatal("the claim is still there")
		}
	})
}
