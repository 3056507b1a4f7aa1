package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity/userdata"
)

// address is where every one of these clouds has its metadata service (RFC 3927: never routed). By
// the number and not by a name: a name would have to be asked of a server that anybody may be.
const address = "http://169.254.169.254"

const (
	// requestTimeout bounds one request from dialling to the last byte of the answer. The services
	// answer in milliseconds; one that takes longer is asked again.
	requestTimeout = 2 * time.Second
	// maxBody bounds an answer: user-data in base64, with line ends.
	maxBody = userdata.MaxBytes*4/3 + 4<<10
)

// client speaks to one cloud's metadata service.
type client struct {
	http    *http.Client
	genuine func(http.Header) error
}

func newClient(p provider, transport http.RoundTripper) client {
	if transport == nil {
		dialer := net.Dialer{Timeout: requestTimeout, Control: onlyLinkLocal}
		var protocols http.Protocols
		protocols.SetHTTP1(true)
		transport = &http.Transport{
			Proxy:             nil, // said, since what is in the environment would be taken elsewhere
			DialContext:       dialer.DialContext,
			DisableKeepAlives: true,
			// A body that unpacks itself would have no bound; userdata unpacks with one.
			DisableCompression:     true,
			MaxResponseHeaderBytes: 16 << 10,
			Protocols:              &protocols,
		}
	}
	return client{
		http: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		genuine: p.genuine,
	}
}

// onlyLinkLocal is asked before each connection, when the address is a number, and so is the last
// word on where a packet may go.
func onlyLinkLocal(network, to string, _ syscall.RawConn) error {
	if network != "tcp4" || to != netip.AddrPortFrom(netip.AddrFrom4([4]byte{169, 254, 169, 254}), 80).String() {
		return fmt.Errorf("a metadata service is never at %s", to)
	}
	return nil
}

// answer is an answer of status 200 or 404.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// passingError is a state that may pass: the service is starting, or is being moved.
type passingError struct {
	err  error
	hint string
}

func (e passingError) Error() string { return e.err.Error() }
func (e passingError) Unwrap() error { return e.err }

// do sends one request. Every answer but 200 and 404 is an error, a passingError where asking
// again may help.
func (c client) do(ctx context.Context, method, path string, header http.Header) (answer, error) {
	a, err := c.send(ctx, method, path, header)
	wrap := func(err error) error { return fmt.Errorf("%s %s%s: %w", method, address, path, err) }
	if err != nil {
		if passing, ok := errors.AsType[passingError](err); ok {
			passing.err = wrap(passing.err)
			return a, passing
		}
		return a, wrap(err)
	}
	switch {
	case a.status == http.StatusOK, a.status == http.StatusNotFound:
		if c.genuine != nil {
			if err := c.genuine(a.header); err != nil {
				return a, fault.New(fault.Refuse, fault.Platform, "see who answers at that address on this machine's network", "%w", wrap(err))
			}
		}
		return a, nil
	case a.status == http.StatusRequestTimeout, a.status == http.StatusGone, a.status == http.StatusTooManyRequests, a.status >= 500:
		// Azure says Gone while its service is updated, and Google 503 while it starts.
		return a, passingError{err: wrap(a.asError())}
	case a.status >= 300 && a.status < 400:
		return a, fault.New(fault.Refuse, fault.Platform, "see who answers at that address on this machine's network",
			"%w: it sends us elsewhere, and a metadata service is nowhere else", wrap(a.asError()))
	default:
		return a, fault.New(fault.Refuse, fault.Platform, "see whether the metadata service is switched on for this machine",
			"%w", wrap(a.asError()))
	}
}

func (a answer) asError() error {
	return fmt.Errorf("the answer is %d %s", a.status, http.StatusText(a.status))
}

func (c client) send(ctx context.Context, method, path string, header http.Header) (answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, requestTimeout, fmt.Errorf("no answer, or not all of it, within %s", requestTimeout))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address+path, http.NoBody)
	if err != nil {
		return answer{}, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, passing(ctx, err)
	}
	defer resp.Body.Close()
	if resp.ContentLength > maxBody {
		return answer{}, errTooLarge
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case len(body) > maxBody:
		return answer{}, errTooLarge
	case err != nil:
		return answer{}, passing(ctx, fmt.Errorf("read the answer: %w", err))
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: body}, nil
}

var errTooLarge = fault.New(fault.Refuse, fault.Platform, "", "the answer is larger than %d bytes", maxBody)

// passing makes a failure of the network one that may pass, in words that say which of the deadlines
// it was.
func passing(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if wrong, ok := errors.AsType[*net.OpError](err); ok {
		err = wrong // without the URL, which the caller says
	}
	return passingError{err: err}
}
