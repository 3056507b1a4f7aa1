package operatorclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/secret"
)

// fake is a server that answers as the test says, and a client for it.
func fake(t *testing.T, answer http.HandlerFunc) (*httptest.Server, Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(answer)
	s.Config.ErrorLog = log.New(testLog{t}, "", 0)
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, Config{URL: s.URL, CAPEM: pemOf(s.Certificate()), Token: secret.New("token")}
}

type testLog struct{ t *testing.T }

func (w testLog) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

func pemOf(cert *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
}

func envelope(status int, code nodeapi.Code, text, hint string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		env := nodeapi.Envelope{Error: text, Code: code}
		if hint != "" {
			env.Details, _ = json.Marshal(operatorapi.Details{Hint: hint})
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(env)
	}
}

func TestAnswers(t *testing.T) {
	text := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		kind   fault.Kind
		area   fault.Area
		want   string
		hint   string
	}{
		"unauthorized":     {envelope(401, nodeapi.CodeUnauthorized, "no", ""), fault.Refuse, fault.Platform, "refuses the operator token", "copy operator.json"},
		"refused":          {envelope(422, nodeapi.CodeValidation, "priority 7", "take 6"), fault.Refuse, fault.Input, "priority 7", "take 6"},
		"not found":        {envelope(404, nodeapi.CodeNotFound, "no node", ""), fault.Refuse, fault.Input, "no node", ""},
		"seal":             {envelope(422, operatorapi.CodeSealRefused, "the seal", "seal again"), fault.Refuse, fault.Verify, "the seal", "seal again"},
		"broken":           {envelope(500, nodeapi.CodeInternal, "internal error", ""), fault.Retry, fault.Platform, "failed: internal error", "see the platform's log"},
		"full":             {envelope(507, nodeapi.CodeInternal, "no space", "make room"), fault.Retry, fault.Platform, "failed: no space", "make room"},
		"no text":          {envelope(418, "", "", ""), fault.Refuse, fault.Input, "I'm a teapot", ""},
		"a web page":       {text(200, "text/html", "<html>"), fault.Refuse, fault.Platform, "is not a powernode platform", "check the url"},
		"a proxy":          {text(502, "text/plain", "bad gateway"), fault.Refuse, fault.Platform, "with status 502 is not a powernode platform", "check the url"},
		"a redirect":       {http.RedirectHandler("https://127.0.0.1:1/", http.StatusFound).ServeHTTP, fault.Refuse, fault.Platform, "is not a powernode platform", ""},
		"another shape":    {text(200, "application/json", `{"success":true,"data":[]}`), fault.Broken, fault.Platform, "read the platform's answer", "same version"},
		"no envelope":      {text(200, "application/json", `[]`), fault.Refuse, fault.Platform, "is not a powernode platform", ""},
		"success with 500": {text(500, "application/json", `{"success":true}`), fault.Retry, fault.Platform, "failed", ""},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for r.Context().Err() == nil {
				if _, err := fmt.Fprint(w, strings.Repeat(" ", 64<<10)); err != nil {
					return
				}
			}
		}, fault.Broken, fault.Platform, "is longer than", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, config := fake(t, tc.answer)
			client, err := NewClient(config)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_, err = client.Nodes(t.Context())
			if err == nil || fault.KindOf(err) != tc.kind || fault.AreaOf(err) != tc.area || !strings.Contains(err.Error(), tc.want) || !strings.Contains(fault.HintOf(err), tc.hint) {
				t.Errorf("%v (%s, area %d, hint %q)", err, fault.KindOf(err), fault.AreaOf(err), fault.HintOf(err))
			}
		})
	}
}

// TestPaths checks that a name from outside is always one segment of the path.
func TestPaths(t *testing.T) {
	var got string
	_, config := fake(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Method + " " + r.URL.EscapedPath() + " " + r.Header.Get("Authorization")
		envelope(404, nodeapi.CodeNotFound, "no", "")(w, r)
	})
	client, err := NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Unassign(t.Context(), "a/../b", "m?x#y"); err == nil {
		t.Error("no error")
	}
	if want := "DELETE /api/v1/operator/nodes/a%2F..%2Fb/assignments/m%3Fx%23y Bearer token"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestUnreachable(t *testing.T) {
	s, config := fake(t, envelope(404, "", "", ""))
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for name, tc := range map[string]struct {
		url  string
		want string
	}{
		"nothing there": {"https" + strings.TrimPrefix(closed.URL, "http"), "reach the platform"},
		"plain HTTP":    {"https" + strings.TrimPrefix(plain.URL, "http"), "doesn't speak HTTPS"},
		// httptest's certificate is for 127.0.0.1, ::1 and example.com.
		"another name": {"https://localhost:" + port(t, s), "is for another name"},
	} {
		c := config
		c.URL = tc.url
		client, err := NewClient(c)
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Info(t.Context())
		if err == nil || !strings.Contains(err.Error(), tc.want) || fault.HintOf(err) == "" || fault.AreaOf(err) != fault.Platform {
			t.Errorf("%s: %v", name, err)
		}
		client.Close()
	}
	if err := unreachable("https://x", context.DeadlineExceeded); fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "in time") {
		t.Error(err)
	}
	expired := &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired}}
	if err := unreachable("https://x", expired); fault.KindOf(err) != fault.Refuse || !strings.Contains(fault.HintOf(err), "clocks") {
		t.Error(err)
	}
	if err := unreachable("https://x", fmt.Errorf("dial: %w", errors.New("refused"))); fault.KindOf(err) != fault.Retry {
		t.Error(err)
	}
}

func port(t *testing.T, s *httptest.Server) string {
	t.Helper()
	_, p, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLoadConfig(t *testing.T) {
	s, _ := fake(t, envelope(404, "", "", ""))
	ca, err := json.Marshal(pemOf(s.Certificate()))
	if err != nil {
		t.Fatal(err)
	}
	good := `{"url":"https://h:1/","ca_pem":` + string(ca) + `,"token":"t0ken"}`
	path := filepath.Join(t.TempDir(), "operator.json")
	for name, tc := range map[string]struct {
		text string
		perm os.FileMode
		want string
	}{
		"good":               {good, 0o600, ""},
		"readable by others": {good, 0o644, "lets others read"},
		"not JSON":           {"x", 0o600, "invalid character"},
		"plain HTTP":         {strings.Replace(good, "https", "http", 1), 0o600, "only https"},
		"with a path":        {strings.Replace(good, ":1/", ":1/x", 1), 0o600, "want https://host:port"},
		"no host":            {strings.Replace(good, "h:1/", "", 1), 0o600, "want https://host:port"},
		"no token":           {strings.Replace(good, "t0ken", "", 1), 0o600, "no token"},
		"a line break":       {strings.Replace(good, "t0ken", `t\r\nX-Y: z`, 1), 0o600, "characters that no token has"},
		"no CA":              {`{"url":"https://h","ca_pem":"","token":"t"}`, 0o600, "no certificate"},
		"huge":               {strings.Repeat(" ", configLimit+1), 0o600, "longer than"},
	} {
		if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tc.perm); err != nil {
			t.Fatal(err)
		}
		config, err := LoadConfig(path)
		if tc.want == "" {
			if err != nil || config.Token.Reveal() != "t0ken" || config.RegistryHost() != "h:1" {
				t.Errorf("%s: %+v, %v", name, config, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) || fault.HintOf(err) == "" || strings.Contains(err.Error(), "t0ken") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := LoadConfig(path + ".none"); err == nil || fault.HintOf(err) == "" || fault.AreaOf(err) != fault.Input {
		t.Errorf("no file: %v", err)
	}
	if _, err := LoadConfig(filepath.Dir(path)); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"url":"https://h:1/","ca_pem":"","token":"t"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		config, err := ParseConfig(data)
		if err == nil && (config.Token.IsZero() || !strings.HasPrefix(strings.ToLower(config.URL), "https://") || config.RegistryHost() == "") {
			t.Errorf("accepted %+v", config)
		}
	})
}
