package api

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// TestOpenAPIIsValid: an OpenAPI library of others takes the document.
func TestOpenAPIIsValid(t *testing.T) {
	text, err := OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context(), openapi3.IsOpenAPI31OrLater()); err != nil {
		t.Error(err)
	}
	if doc.OpenAPI != "3.1.0" || doc.Info.Version != fmt.Sprint(nodeapi.Version) || doc.Paths.Len() < 40 {
		t.Errorf("%s, version %s, %d paths", doc.OpenAPI, doc.Info.Version, doc.Paths.Len())
	}
}

// TestTrouble: what goes wrong inside is answered by the three statuses that the document sums up as 5XX.
func TestTrouble(t *testing.T) {
	for status, err := range map[int]error{
		http.StatusInternalServerError: errors.New("secret"),
		http.StatusServiceUnavailable:  fault.New(fault.Retry, fault.General, "", "secret"),
		http.StatusInsufficientStorage: fmt.Errorf("secret: %w", syscall.ENOSPC),
	} {
		a := &API{log: slog.New(slog.DiscardHandler)}
		w := httptest.NewRecorder()
		a.answering(func(http.ResponseWriter, *http.Request) (any, error) { return nil, err }).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
		body := w.Body.String()
		if w.Code != status || !strings.Contains(body, string(nodeapi.CodeInternal)) || strings.Contains(body, "secret") {
			t.Errorf("%d %s, want %d", w.Code, body, status)
		}
		if (w.Header().Get("Retry-After") != "") != (status == http.StatusServiceUnavailable) {
			t.Errorf("%d: Retry-After %q", status, w.Header().Get("Retry-After"))
		}
	}
}
