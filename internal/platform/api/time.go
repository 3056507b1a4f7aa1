package api

import (
	"fmt"
	"net/http"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Bounds of what may be asked of the authority's key.
const (
	maxTime      = 1 << 10                // bytes of a request
	timeBurst    = 120                    // calls at once from one address: nodes behind one router start together
	timeInterval = 100 * time.Millisecond // between calls after that
)

// time answers with the platform's time, signed by the authority's own key over the caller's nonce. It is
// for everyone: a node whose clock is wrong can't show a certificate yet.
func (a *API) time(w http.ResponseWriter, r *http.Request) (any, error) {
	if wait, ok := a.timeAsked.allow(r); !ok {
		return nil, tooMany(w, wait)
	}
	in, err := read[nodeapi.TimeRequest](w, r, maxTime)
	if err != nil {
		return nil, err
	}
	if !isSHA256(in.Nonce) {
		return nil, invalid("nonce %.80q: want 32 random bytes as 64 lower-case hexadecimal digits", in.Nonce)
	}
	now := a.now().UTC().Format(time.RFC3339Nano)
	bundle := a.ca.BundleSHA256()
	signature, signer, err := a.ca.Sign(nodeapi.TimeMessage(in.Nonce, now, bundle))
	if err != nil {
		return nil, fmt.Errorf("sign the time: %w", err)
	}
	return nodeapi.TimeResponse{Nonce: in.Nonce, ServerTime: now, CABundleSHA256: bundle, SignerPEM: string(signer), Signature: signature}, nil
}

// tooMany refuses a caller until wait has passed.
func tooMany(w http.ResponseWriter, wait time.Duration) *problem {
	seconds := int64((wait + time.Second - 1) / time.Second)
	w.Header().Set("Retry-After", fmt.Sprint(seconds))
	return refuse(http.StatusTooManyRequests, nodeapi.CodeTooManyRequests, "too many requests from this address").
		withHint(fmt.Sprintf("ask again in %d s", seconds))
}

// isSHA256 reports whether s is 32 bytes in lower-case hexadecimal digits.
func isSHA256(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
