package nodehttp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/secret"
)

// Call is one request of the node_api.
type Call struct {
	// Doing says what the call is for, as the beginning of an error's text: "send heartbeat".
	Doing        string
	Method, Path string
	// Body is encoded as JSON; nil sends none.
	Body any
	// Into receives the envelope's data; nil discards it. An answer without data is then an error.
	Into any
	// Wait is how long the platform may take before it begins to answer, as it was asked to; the bounds of Options come on
	// top of it.
	Wait time.Duration
	// Secrets are removed from whatever the platform says in an error.
	Secrets []secret.Text
}

// Do makes one attempt at call and returns nil when the platform answered it with success. A failed
// call is a *fault.Error of area Platform: Retry where the same call may succeed later, Refuse where
// the platform or the peer's certificate said no, Broken where the peer isn't a platform. What the
// platform said is a *StatusError in the chain. A cancelled ctx is returned as such.
func (c *Conn) Do(ctx context.Context, call Call) error {
	fail := &failure{conn: c, call: call, parent: ctx}
	var body io.Reader
	if call.Body != nil {
		b, err := json.Marshal(call.Body)
		if err != nil {
			return fmt.Errorf("%s: encode the request: %w", call.Doing, err)
		}
		body = bytes.NewReader(b)
	}
	reqCtx, alive, cancel := c.deadline(ctx, call.Wait)
	defer cancel()
	fail.ctx = reqCtx
	req, err := http.NewRequestWithContext(reqCtx, call.Method, c.base+call.Path, body)
	if err != nil {
		return fmt.Errorf("%s: make the request: %w", call.Doing, err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.options.UserAgent)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return fail.transport(err)
	}
	defer resp.Body.Close()
	if resp.TLS != nil {
		c.presented.Store(&resp.TLS.PeerCertificates)
	}
	alive()
	raw, err := io.ReadAll(io.LimitReader(&liveReader{resp.Body, alive}, nodeapi.MaxResponse+1))
	if err == nil {
		// Where we gave up, the peer may have ended its answer properly just before our end
		// was closed; it is still a part of one.
		err = reqCtx.Err()
	}
	switch {
	case err != nil:
		return fail.transport(err)
	case len(raw) > nodeapi.MaxResponse:
		return fail.new(fault.Broken, hintNotPlatform, "the platform's answer is larger than %d bytes", nodeapi.MaxResponse)
	}
	return fail.decode(resp, raw)
}

// decode judges a complete answer.
func (f *failure) decode(resp *http.Response, raw []byte) error {
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return f.redirect(resp)
	}
	var env nodeapi.Envelope
	parseErr := json.Unmarshal(raw, &env)
	ok := resp.StatusCode >= 200 && resp.StatusCode < 300
	switch {
	case ok && parseErr != nil:
		return f.new(fault.Broken, hintNotPlatform, "the answer isn't a node_api answer, it begins %q", clean(string(raw), 40))
	case !ok, !env.Success:
		if parseErr != nil {
			env = nodeapi.Envelope{}
		}
		return f.status(resp, env)
	case f.call.Into == nil:
		return nil
	case len(env.Data) == 0 || string(env.Data) == "null":
		return f.new(fault.Broken, hintNotPlatform, "the platform's answer holds no data")
	}
	if err := json.Unmarshal(env.Data, f.call.Into); err != nil {
		return f.new(fault.Broken, hintNotPlatform, "the platform's answer isn't as agreed: %s", clean(err.Error(), 160))
	}
	return nil
}

// liveReader calls alive whenever bytes arrive.
type liveReader struct {
	r     io.Reader
	alive func()
}

func (l *liveReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if n > 0 {
		l.alive()
	}
	return n, err
}

// clean makes a text of the peer fit for a message: printable, on one line, at most limit characters.
func clean(s string, limit int) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > limit {
			b.WriteRune('…')
			break
		}
		if !unicode.IsPrint(r) {
			r = ' '
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}
