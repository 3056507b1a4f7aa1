package api

import (
	"crypto/sha256"
	"net/http"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/platform/db"
)

// What each address may show of wrong operators' tokens: so many at once, and after that one with each interval. Nobody guesses 256
// random bits; but each try costs a look into the database, and one that doesn't stop is worth a person's attention.
const (
	wrongBurst    = 60
	wrongInterval = 5 * time.Second
)

// wrongTokenEvents names their events for the bound of strangers'.
const wrongTokenEvents = "wrong tokens"

// maxGoodTokens bounds the tokens that are remembered as good. There are fewer operators.
const maxGoodTokens = 1024

// wrongTokens bounds the wrong tokens of each address. Tokens that were good are let through all the same: whoever shows wrong ones must
// not lock out those who share their address, as behind one router.
type wrongTokens struct {
	byAddress *addressLimiter

	mu   sync.Mutex
	good map[[sha256.Size]byte]struct{}
}

func newWrongTokens(now func() time.Time) *wrongTokens {
	return &wrongTokens{byAddress: newAddressLimiter(wrongBurst, wrongInterval, now), good: map[[sha256.Size]byte]struct{}{}}
}

// enter reports whether a token may be looked up for r, or else how long its address has to wait.
func (l *wrongTokens) enter(r *http.Request, hash [sha256.Size]byte) (wait time.Duration, ok bool) {
	l.mu.Lock()
	_, good := l.good[hash]
	l.mu.Unlock()
	if good {
		return 0, true
	}
	return l.byAddress.may(r)
}

// wasGood notes that a token is an operator's.
func (l *wrongTokens) wasGood(hash [sha256.Size]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.good) >= maxGoodTokens {
		clear(l.good)
	}
	l.good[hash] = struct{}{}
}

// wasWrong notes that a token is nobody's, and reports whether it was the last that its address may show for now.
func (l *wrongTokens) wasWrong(r *http.Request, hash [sha256.Size]byte) (last bool) {
	l.mu.Lock()
	delete(l.good, hash)
	l.mu.Unlock()
	if _, ok := l.byAddress.allow(r); !ok {
		return false // one of several at the same moment
	}
	_, more := l.byAddress.may(r)
	return !more
}

// operator finds the operator with a token, by its hash. It looks anew each time: a token that was revoked or replaced stops working
// at once. Without one known is false, and wait how long nobody is looked for by a token from that address, if it has shown too many wrong ones.
func (a *API) operator(r *http.Request, token string) (o db.Operator, known bool, wait time.Duration, err error) {
	hash := sha256.Sum256([]byte(token))
	if wait, ok := a.wrongTokens.enter(r, hash); !ok {
		return o, false, wait, nil
	}
	o, err = a.db.OperatorByHash(r.Context(), hash)
	switch {
	case err == nil:
		a.wrongTokens.wasGood(hash)
		return o, true, 0, nil
	case !isNotFound(err):
		return o, false, 0, err
	}
	if a.wrongTokens.wasWrong(r, hash) {
		return o, false, 0, a.tellWrongTokens(r)
	}
	return o, false, 0, nil
}

// tellWrongTokens lets operators see that an address shows wrong tokens again and again.
func (a *API) tellWrongTokens(r *http.Request) error {
	a.log.Warn("an address shows one wrong operator's token after the other, and is told to wait", "from", host(r))
	if !a.strangers.allow(wrongTokenEvents) {
		return nil
	}
	return a.db.RecordEvent(r.Context(), db.EventAccessRefused, "", "too many wrong operator's tokens from "+host(r)+", the last at "+r.URL.Path)
}
