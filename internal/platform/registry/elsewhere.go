package registry

import (
	"encoding/json"
	"net/http"
)

// Elsewhere answers below Root where the platform has no registry of its own: that the modules are in the one of that name.
func Elsewhere(name string) http.Handler {
	body, _ := json.Marshal(map[string]any{"errors": []map[string]string{{"code": codeUnsupported, "message": "there is no registry here; the modules are in " + name}}})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		if r.Method != http.MethodHead {
			// A caller that went away needs no answer.
			_, _ = w.Write(body)
		}
	})
}
