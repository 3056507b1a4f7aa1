package anchor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// client returns one that believes nobody: what it fetches is proven afterwards. oldest is the least version of TLS.
func (a Anchor) client(oldest uint16, redirect func(*http.Request, []*http.Request) error) *http.Client {
	transport := &http.Transport{
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig: &tls.Config{
			MinVersion: oldest,
			// The fingerprint proves the content; who sent it doesn't matter.
			InsecureSkipVerify: true,
		},
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		DisableKeepAlives:      true,
	}
	if a.Proxy != nil {
		transport.Proxy = through(a.Proxy)
	}
	return &http.Client{Transport: transport, CheckRedirect: redirect}
}

// through has all requests go by the proxy but those to link-local addresses, which are another machine there.
func through(proxy *url.URL) func(*http.Request) (*url.URL, error) {
	return func(r *http.Request) (*url.URL, error) {
		if to, err := netip.ParseAddr(r.URL.Hostname()); err == nil && to.Unmap().IsLinkLocalUnicast() {
			return nil, nil
		}
		return proxy, nil
	}
}

// get returns the body of an answer of at most limit bytes, and the TLS state where there is one, also
// beside an answer that is an error.
func get(ctx context.Context, client *http.Client, from string, limit int64) ([]byte, *tls.ConnectionState, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, nil, answerError{err: err}
	}
	request.Header.Set("User-Agent", agentName)
	response, err := client.Do(request)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok { // it repeats the URL
			err = e.Err
		}
		return nil, nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		code := response.StatusCode
		return nil, response.TLS, answerError{err: fmt.Errorf("the answer is %d %s", code, http.StatusText(code)), passing: code >= 500 || code == http.StatusTooManyRequests}
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = answerError{err: fmt.Errorf("the answer is larger than %d bytes", limit)}
	}
	return body, response.TLS, err
}
