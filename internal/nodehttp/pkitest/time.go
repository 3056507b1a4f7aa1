package pkitest

import (
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Time returns the handler of nodeapi.PathTime as of a clock: it answers as a platform does whose CA this is. nil is
// the machine's clock.
func (ca *CA) Time(now func() time.Time) http.Handler {
	return ca.Tells(now, func() string { return "" })
}

// Tells is Time with the SHA-256 of a CA bundle, and with the certificates that lead to this CA from older ones.
func (ca *CA) Tells(now func() time.Time, bundle func() string, lead ...*x509.Certificate) http.Handler {
	if now == nil {
		now = time.Now
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in nodeapi.TimeRequest
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<10)).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		text := now().UTC().Format(time.RFC3339Nano)
		answer := nodeapi.TimeResponse{
			Nonce: in.Nonce, ServerTime: text, CABundleSHA256: bundle(), SignerPEM: string(ca.PEM()) + string(EncodePEM(lead...)),
			Signature: ca.SignMessage(nodeapi.TimeMessage(in.Nonce, text, bundle())),
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"success": true, "data": answer})
	})
}
