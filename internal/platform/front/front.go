// Package front is what every request passes first: it gives the request its ID, and settles whose it is where a proxy stands before
// the platform.
//
// It promises that a client's address and certificate are taken from headers only if the connection comes from an address that is
// listed as a trusted proxy's, that a certificate so passed is checked against the platform's own authorities as one of a handshake
// would be, and that a request whose word about its certificate can't be believed is refused, never answered as if it had said
// nothing. It trusts the listed addresses, with every program on those machines: what they say of a certificate is as good as the proof
// that its key is held.
package front

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"regexp"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/api"
)

// Options is what a front is made of.
type Options struct {
	// Proxies are the addresses of trusted proxies; none trusts nobody.
	Proxies []netip.Prefix
	// Header is the one header in which the proxies pass the client's certificate; "" is DefaultHeader.
	Header Header
	// Authorities returns what may sign a client's certificate, at each request.
	Authorities func() *x509.CertPool
	Logger      *slog.Logger
	// Now tells the time.
	Now func() time.Time
}

type front struct {
	Options
	next http.Handler
}

// New returns the handler that passes on to next what isn't refused.
func New(o Options, next http.Handler) http.Handler {
	if o.Header == "" {
		o.Header = DefaultHeader
	}
	return &front{Options: o, next: next}
}

// goodID is what a proxy may call a request.
var goodID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// newID returns 128 random bits.
func newID() string {
	var b [16]byte
	// crypto/rand.Read never fails: it ends the process where the system has no randomness.
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// refusal is an answer to a request that goes no further.
type refusal struct {
	status int
	code   nodeapi.Code
	text   string
}

func refuse(status int, code nodeapi.Code, format string, args ...any) *refusal {
	return &refusal{status, code, fmt.Sprintf(format, args...)}
}

// ServeHTTP passes the request on as the client's own.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	peer, proxied := f.proxy(r.RemoteAddr)
	id := newID()
	if given := r.Header.Get(api.HeaderRequestID); proxied && goodID.MatchString(given) {
		id = given
	}
	w.Header().Set(api.HeaderRequestID, id)
	out := r.WithContext(api.WithRequestID(r.Context(), id))
	if refused := f.settle(out, peer, proxied); refused != nil {
		f.Logger.Debug("refused at the door", "request", id, "peer", r.RemoteAddr, "from", out.RemoteAddr, "reason", refused.text)
		api.Refuse(w, out, refused.status, refused.code, refused.text)
		return
	}
	f.next.ServeHTTP(w, out)
}

// proxy returns the address of a connection's other end, and whether it is a trusted proxy's.
func (f *front) proxy(remote string) (peer netip.Addr, trusted bool) {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}, false
	}
	peer = at.Addr().Unmap().WithZone("")
	return peer, f.trusts(peer)
}

func (f *front) trusts(addr netip.Addr) bool {
	for _, p := range f.Proxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// settle puts the client's address and certificate in the place of the proxy's.
func (f *front) settle(r *http.Request, peer netip.Addr, proxied bool) *refusal {
	if !proxied {
		for _, h := range Headers() {
			if len(r.Header.Values(string(h))) > 0 {
				return refuse(http.StatusBadRequest, nodeapi.CodeValidation, "%s is a trusted proxy's to set, and %s isn't listed as one", h, peer)
			}
		}
		return nil
	}
	r.RemoteAddr = netip.AddrPortFrom(f.client(r.Header, peer), 0).String()
	chain, refused := f.certificate(r)
	if refused != nil || chain == nil {
		return refused
	}
	// A copy: the connection's own is for all its requests.
	state := tls.ConnectionState{}
	if r.TLS != nil {
		state = *r.TLS
	}
	if len(state.PeerCertificates) > 0 {
		return refuse(http.StatusBadRequest, nodeapi.CodeValidation, "the proxy passes a client's certificate in %s and shows one of its own: which counts isn't clear", f.Header)
	}
	state.PeerCertificates, state.VerifiedChains = chain[:1], [][]*x509.Certificate{chain}
	r.TLS = &state
	return nil
}
