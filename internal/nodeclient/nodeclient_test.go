package nodeclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

// keeper holds the node's credentials, and lets a test renew them.
type keeper struct {
	atomic.Pointer[nodehttp.Material]
}

func (k *keeper) Material() (*nodehttp.Material, error) {
	if m := k.Load(); m != nil {
		return m, nil
	}
	return nil, errors.New("no credentials")
}

// node is a node and its platform, which answers as handler says to whoever has a certificate.
type node struct {
	ca     *pkitest.CA
	keeper *keeper
	url    string
	client *Client
	// conns are the connections that the platform has seen.
	conns atomic.Int32
}

func newNode(t *testing.T, handler http.HandlerFunc) *node {
	t.Helper()
	n := &node{ca: pkitest.NewCA(t, "CA"), keeper: &keeper{}}
	srv := n.ca.Serve(n.ca.Web(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		handler(w, r)
	}), func(c *tls.Config) {
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { n.conns.Add(1); return nil, nil }
	})
	n.url = srv.URL
	n.renew()
	c, err := New(Config{
		Credentials: n.keeper,
		Retry:       nodehttp.Backoff{Tries: 4, First: time.Millisecond, Max: 2 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	n.client = c
	return n
}

// renew gives the node a new certificate and returns its serial number.
func (n *node) renew() string {
	cert := n.ca.Issue(n.ca.Node("node-1"))
	n.keeper.Store(&nodehttp.Material{PlatformURL: n.url, CAs: []*x509.Certificate{n.ca.Cert}, Certificate: cert})
	return cert.Leaf.SerialNumber.String()
}

func success(data string) string { return `{"success":true,"data":` + data + `}` }

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestModules(t *testing.T) {
	full := `{"modules":[{"id":"m-1","name":"nginx","variety":"subscription","version":"1.22.1-9","priority":5,"effective_priority":2005,
		"reboot_required":false,"repository":"p:5000/modules/nginx","digest":"` + digest + `","dependencies":["m-2"],"copy_path_destination":null},
		{"id":"m-2"}],"count":2,"root_digest":"` + digest[7:] + `"}`
	for _, c := range []struct {
		name, data string
		want       *nodeapi.ModuleList
		err        string
	}{
		{name: "full", data: full, want: &nodeapi.ModuleList{Count: 2, RootDigest: digest[7:], Modules: []nodeapi.Module{
			{ID: "m-1", Name: "nginx", Variety: nodeapi.VarietySubscription, Version: "1.22.1-9", Priority: 5, EffectivePriority: 2005, Repository: "p:5000/modules/nginx", Digest: digest, Dependencies: []string{"m-2"}},
			{ID: "m-2"},
		}}},
		{name: "empty", data: `{"modules":[],"count":0}`, want: &nodeapi.ModuleList{Modules: []nodeapi.Module{}}},
		{name: "no count", data: `{"modules":[]}`, want: &nodeapi.ModuleList{Modules: []nodeapi.Module{}}},
		{name: "no list", data: `{"count":0}`, err: "holds no list of modules"},
		{name: "null list", data: `{"modules":null,"count":0}`, err: "holds no list of modules"},
		{name: "an array", data: `[]`, err: "isn't as agreed"},
		{name: "short", data: `{"modules":[{"id":"a"}],"count":2}`, err: "says 2 modules and holds 1"},
		{name: "twice", data: `{"modules":[{"id":"a"},{"id":"a"}],"count":2}`, err: "module a is listed twice"},
		{name: "no ID", data: `{"modules":[{"id":"a"},{}],"count":2}`, err: `module 2 of 2: "" isn't a module ID`},
		{name: "odd ID", data: `{"modules":[{"id":"../../x"}]}`, err: `"../../x" isn't a module ID`},
		{name: "odd type", data: `{"modules":[{"id":"a","priority":"high"}]}`, err: "isn't as agreed: modules.priority is a JSON string"},
		{name: "words", data: `{"modules":[{"id":"m-1","allow_downgrade":true}],"remove_most":true}`, want: &nodeapi.ModuleList{
			Count: 1, RemoveMost: true, Modules: []nodeapi.Module{{ID: "m-1", AllowDowngrade: true}},
		}},
		{name: "odd digest", data: `{"modules":[],"root_digest":"x"}`, err: `"x" isn't a root digest`},
		{name: "many", data: `{"modules":[` + strings.Repeat(`{"id":"a"},`, maxModules) + `{"id":"b"}]}`, err: "more than 2000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || r.URL.Path != nodeapi.PathModules {
					t.Errorf("%s %s", r.Method, r.URL.Path)
				}
				_, _ = io.WriteString(w, success(c.data))
			})
			got, err := n.client.Modules(t.Context())
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || fault.KindOf(err) != fault.Broken || got != nil {
					t.Errorf("got %v, %v (%v); want %q", got, err, fault.KindOf(err), c.err)
				}
				return
			}
			if d := cmp.Diff(c.want, got); d != "" || err != nil {
				t.Errorf("%v %s", err, d)
			}
		})
	}
}

func TestModule(t *testing.T) {
	for _, c := range []struct{ name, id, data, err string }{
		{name: "nested", id: "m-1", data: `{"module":{"id":"m-1","name":"nginx","digest":"` + digest + `"}}`},
		{name: "flat", id: "m-1", data: `{"id":"m-1","name":"nginx","digest":"` + digest + `"}`},
		{name: "another", id: "m-1", data: `{"module":{"id":"m-2"}}`, err: `is about module "m-2"`},
		{name: "empty", id: "m-1", data: `{}`, err: `is about module ""`},
		{name: "text", id: "m-1", data: `"x"`, err: "isn't as agreed"},
		{name: "odd ID", id: "../modules", err: "isn't a module ID"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != nodeapi.PathModules+"/"+c.id {
					t.Errorf("path %s", r.URL.Path)
				}
				_, _ = io.WriteString(w, success(c.data))
			})
			got, err := n.client.Module(t.Context(), c.id)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, %v; want %q", got, err, c.err)
				}
				return
			}
			if err != nil || got.Module.Name != "nginx" || got.Module.Digest != digest {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestHeartbeat(t *testing.T) {
	var got nodeapi.Heartbeat
	ack := `{"acknowledged":true,"server_time":"2026-11-23T04:00:00Z","next_poll_seconds":30}`
	requests := 0
	n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		requests++
		body, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(body), `"module_digests":{}`) {
			t.Errorf("body %s", body)
		}
		if err := json.Unmarshal(body, &got); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, success(ack))
	})
	answer, err := n.client.Heartbeat(t.Context(), nodeapi.Heartbeat{BootID: "b", AgentVersion: "v", MountState: nodeapi.MountMounted})
	if err != nil || answer.NextPollSeconds != 30 || answer.ServerTime.Year() != 2026 || got.BootID != "b" {
		t.Errorf("%+v, %v, platform got %+v", answer, err, got)
	}
	ack = `{"next_poll_seconds":30}`
	if _, err := n.client.Heartbeat(t.Context(), nodeapi.Heartbeat{}); err == nil || !strings.Contains(err.Error(), "didn't acknowledge") || fault.KindOf(err) != fault.Retry {
		t.Errorf("not acknowledged: %v", err)
	}
	if requests != 2 {
		t.Errorf("%d requests", requests)
	}
}

// TestBootReport: a report is cut to its bounds before it is sent, and isn't sent until the platform
// says that it has it.
func TestBootReport(t *testing.T) {
	var got nodeapi.BootReport
	ack := `{"acknowledged":true}`
	n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != nodeapi.PathBootReports || r.Method != http.MethodPost {
			t.Errorf("%s %s", r.Method, r.URL.Path)
		}
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, success(ack))
	})
	report := nodeapi.BootReport{BootID: "b", Failure: strings.Repeat("é", 600) + "\x1b", Stages: make([]nodeapi.BootStage, 100), Fallback: &nodeapi.BootTrial{Reason: "a\nb"}}
	report.Stages[0].Name, report.Stages[99].Name = "first", "last"
	if err := n.client.BootReport(t.Context(), report); err != nil {
		t.Fatal(err)
	}
	if got.BootID != "b" || got.Failure != strings.Repeat("é", 500) || len(got.Stages) != nodeapi.MaxBootStages || got.Stages[0].Name != "first" || got.Stages[63].Name != "last" || got.Fallback.Reason != "a b" {
		t.Errorf("sent %+v", got)
	}
	if report.Fallback.Reason != "a\nb" {
		t.Error("the caller's report changed")
	}
	ack = `{}`
	if err := n.client.BootReport(t.Context(), report); err == nil || fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "didn't acknowledge") {
		t.Errorf("not acknowledged: %v", err)
	}
}

func TestRetries(t *testing.T) {
	for _, c := range []struct {
		name     string
		status   int
		failures int
		requests int
		kind     fault.Kind
	}{
		{"mended", 503, 3, 4, 0},
		{"stays down", 503, 99, 4, fault.Retry},
		{"slow down", 429, 2, 3, 0},
		{"revoked", 403, 99, 1, fault.Refuse},
		{"gone", 404, 99, 1, fault.Refuse},
	} {
		t.Run(c.name, func(t *testing.T) {
			requests, told := 0, 0
			n := newNode(t, func(w http.ResponseWriter, _ *http.Request) {
				if requests++; requests <= c.failures {
					w.WriteHeader(c.status)
					_, _ = io.WriteString(w, `{"success":false,"error":"no","code":"X"}`)
					return
				}
				_, _ = io.WriteString(w, success(`{"modules":[]}`))
			})
			n.client.config.Notify = func(error, time.Duration) { told++ }
			_, err := n.client.Modules(t.Context())
			if (err == nil) != (c.failures < c.requests) || requests != c.requests || told != c.requests-1 || err != nil && fault.KindOf(err) != c.kind {
				t.Errorf("%d requests, told %d times, %v (%v)", requests, told, err, fault.KindOf(err))
			}
			// A heartbeat has one attempt.
			before := requests
			if _, err := n.client.Heartbeat(t.Context(), nodeapi.Heartbeat{}); c.failures > 9 && (err == nil || requests != before+1) {
				t.Errorf("heartbeat: %v, %d requests", err, requests-before)
			}
		})
	}
}

// TestRotationReachesTheNextRequest is the case of agents that kept the old certificate in a pool.
func TestRotationReachesTheNextRequest(t *testing.T) {
	var serial string
	n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		serial = r.TLS.PeerCertificates[0].SerialNumber.String()
		_, _ = io.WriteString(w, success(`{"modules":[]}`))
	})
	ask := func() string {
		if _, err := n.client.Modules(t.Context()); err != nil {
			t.Fatal(err)
		}
		return serial
	}
	first := ask()
	// net/http gives up a connection whose last write it hears of more than 50 ms late.
	again := false
	for range 20 {
		before := n.conns.Load()
		if ask() != first {
			t.Error("another certificate")
		}
		again = again || n.conns.Load() == before
	}
	if !again {
		t.Errorf("%d connections for 21 requests", n.conns.Load())
	}
	second := n.renew()
	if got := ask(); got != second || got == first {
		t.Errorf("after the renewal: serial %s, want %s", got, second)
	}

	// The registry's client, which keeps the configuration, sees it too.
	cfg, err := n.client.TLSConfig()
	if err != nil || cfg.MinVersion != tls.VersionTLS13 || cfg.RootCAs == nil {
		t.Fatalf("%v, %v", cfg, err)
	}
	third := n.renew()
	tr := &http.Transport{TLSClientConfig: cfg}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get(n.url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if serial != third {
		t.Errorf("the registry's client has serial %s, want %s", serial, third)
	}
}

// TestUnauthorizedConnectionIsDropped is the case of a proxy that decides at a connection's beginning
// whether it asks for certificates.
func TestUnauthorizedConnectionIsDropped(t *testing.T) {
	bad := true
	n := newNode(t, func(w http.ResponseWriter, _ *http.Request) {
		if bad {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, success(`{"modules":[]}`))
	})
	for range 3 {
		if _, err := n.client.Modules(t.Context()); nodehttp.StatusOf(err) != http.StatusUnauthorized {
			t.Fatal(err)
		}
	}
	if got := n.conns.Load(); got != 3 {
		t.Errorf("%d connections for three refusals", got)
	}
	bad = false
	if _, err := n.client.Modules(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNoCredentials(t *testing.T) {
	if _, err := New(Config{Credentials: &keeper{}}); err == nil {
		t.Error("a client without credentials")
	}
	n := newNode(t, func(http.ResponseWriter, *http.Request) {})
	n.keeper.Store(nil)
	if _, err := n.client.Modules(t.Context()); err == nil || !strings.Contains(err.Error(), "no credentials") {
		t.Errorf("lost credentials: %v", err)
	}
	if _, err := n.client.TLSConfig(); err == nil {
		t.Error("TLS settings without credentials")
	}
	n.keeper.Store(&nodehttp.Material{PlatformURL: "http://p"})
	if _, err := n.client.Modules(t.Context()); err == nil {
		t.Error("http was accepted")
	}
}

func TestSeveralAtOnce(t *testing.T) {
	n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == nodeapi.PathHeartbeat {
			_, _ = io.WriteString(w, success(`{"acknowledged":true}`))
			return
		}
		_, _ = io.WriteString(w, success(`{"modules":[]}`))
	})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 5 {
				var err error
				switch i % 4 {
				case 0:
					n.renew()
				case 1:
					_, err = n.client.Heartbeat(t.Context(), nodeapi.Heartbeat{})
				default:
					_, err = n.client.Modules(t.Context())
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.client.Modules(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestCheckModule(t *testing.T) {
	good := nodeapi.Module{ID: "m-1", Name: "nginx", Version: "1.22.1-9+deb12u1", EffectivePriority: 2005, Repository: "127.0.0.1:5000/modules/nginx", Digest: digest}
	for _, c := range []struct {
		name  string
		alter func(*nodeapi.Module)
		err   string
	}{
		{"good", func(*nodeapi.Module) {}, ""},
		{"no version", func(m *nodeapi.Module) { m.Version = "" }, "module version"},
		{"IPv6", func(m *nodeapi.Module) { m.Repository = "[::1]:5000/a/b-c__d" }, ""},
		{"ID", func(m *nodeapi.Module) { m.ID = "-x" }, "isn't a module ID"},
		{"name", func(m *nodeapi.Module) { m.Name = "../x" }, "module name"},
		{"version", func(m *nodeapi.Module) { m.Version = "a b" }, "module version"},
		{"no repository", func(m *nodeapi.Module) { m.Repository = "" }, "isn't an OCI repository"},
		{"URL", func(m *nodeapi.Module) { m.Repository = "https://p/x" }, "isn't an OCI repository"},
		{"up", func(m *nodeapi.Module) { m.Repository = "p/../x" }, "isn't an OCI repository"},
		{"tag", func(m *nodeapi.Module) { m.Repository = "p/x:latest" }, "isn't an OCI repository"},
		{"long", func(m *nodeapi.Module) { m.Repository = "p/" + strings.Repeat("a", 600) }, "isn't an OCI repository"},
		{"digest", func(m *nodeapi.Module) { m.Digest = digest[7:] }, "isn't the digest"},
		{"priority", func(m *nodeapi.Module) { m.EffectivePriority = -1 }, "isn't an effective priority"},
	} {
		m := good
		c.alter(&m)
		err := CheckModule(m)
		if (err == nil) != (c.err == "") || err != nil && (!strings.Contains(err.Error(), c.err) || fault.KindOf(err) != fault.Refuse || fault.HintOf(err) == "") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"modules":[{"id":"a"}],"count":1}`, `{"modules":null}`, `{"module":{"id":"a"}}`, `{"id":"a"}`, `{"module":[]}`, `x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := decodeList(raw)
		if err == nil && (list.Modules == nil || list.Count != len(list.Modules)) {
			t.Fatalf("%q gives %+v", raw, list)
		}
		detail, err2 := decodeDetail(raw, "a")
		if err2 == nil && detail.Module.ID != "a" {
			t.Fatalf("%q gives %+v", raw, detail)
		}
		for _, e := range []error{err, err2} {
			if e != nil && (len(fmt.Sprint(e)) > 700 || strings.ContainsAny(e.Error(), "\n\x1b")) {
				t.Fatalf("%q gives the message %v", raw, e)
			}
		}
	})
}

// TestPrepareAndHeard run before and after each attempt.
func TestPrepareAndHeard(t *testing.T) {
	ca := pkitest.NewCA(t, "CA")
	code := 200
	srv := ca.Serve(ca.Web(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, `{"success":true,"data":{"acknowledged":true}}`)
	}), nil)
	m := &nodehttp.Material{PlatformURL: srv.URL, CAs: []*x509.Certificate{ca.Cert}, Certificate: ca.Issue(ca.Node("n"))}
	var refuse error
	var heard []int
	var source keeper
	source.Store(m)
	c, err := New(Config{
		Credentials: &source, Prepare: func(context.Context) error { return refuse },
		Heard: func(with *nodehttp.Material, err error) {
			if with != m {
				t.Error("other credentials")
			}
			heard = append(heard, nodehttp.StatusOf(err))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	beat := func() error { _, err := c.Heartbeat(t.Context(), nodeapi.Heartbeat{}); return err }
	if err := beat(); err != nil {
		t.Error(err)
	}
	code = 401
	if err := beat(); nodehttp.StatusOf(err) != 401 {
		t.Error(err)
	}
	refuse = fault.New(fault.Retry, fault.Platform, "", "there is no time")
	if err := beat(); fault.KindOf(err) != fault.Retry || err.Error() != "send the heartbeat: there is no time" {
		t.Error(err)
	}
	if len(heard) != 2 || heard[0] != 0 || heard[1] != 401 {
		t.Errorf("heard %v", heard)
	}
}
