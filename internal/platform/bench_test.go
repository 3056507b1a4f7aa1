package platform_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// BenchmarkHeartbeat measures heartbeats over one connection: TLS, certificate check, and a
// durable write each.
func BenchmarkHeartbeat(b *testing.B) {
	p := platformtest.Start(b)
	client := p.Client(p.Enroll("n", "amd64"))
	client.Transport.(*http.Transport).DisableKeepAlives = false
	body, err := json.Marshal(heartbeat())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		resp, err := client.Post(p.URL+nodeapi.PathHeartbeat, "application/json", bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			b.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			b.Fatal(resp.Status)
		}
	}
}

// BenchmarkBlob measures push and pull of a blob of 64 MiB over loopback TLS.
func BenchmarkBlob(b *testing.B) {
	p := platformtest.Start(b)
	data := bytes.Repeat([]byte("0123456789abcdef"), 4<<20)
	digest := sum(data)
	client := p.Client(nil)
	client.Transport.(*http.Transport).DisableKeepAlives = false
	do := func(b *testing.B, method, path string, body io.Reader) {
		b.Helper()
		req, err := http.NewRequestWithContext(b.Context(), method, p.URL+path, body)
		if err != nil {
			b.Fatal(err)
		}
		req.SetBasicAuth(operatorapi.RegistryUser, p.Config.Token.Reveal())
		resp, err := client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode >= 300 {
			b.Fatal(resp.Status, err)
		}
	}
	b.Run("push", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			do(b, http.MethodPost, "/v2/r/blobs/uploads/?digest="+digest, bytes.NewReader(data))
		}
	})
	b.Run("pull", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			do(b, http.MethodGet, "/v2/r/blobs/"+digest, nil)
		}
	})
}
