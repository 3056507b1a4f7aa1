package api

import (
	"net/http"
	"time"
)

// What each address may ask for without a certificate and without an operator's token, beside the time, claims and renewals, which
// have their own bounds: so many calls at once, as the nodes behind one router start together, and after that one with each interval.
const (
	enrollBurst    = 600
	enrollInterval = 50 * time.Millisecond
	plainBurst     = 600
	plainInterval  = 50 * time.Millisecond
)

// limited lets each address make so many calls.
func limited(limit *addressLimiter, serve handler) handler {
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		if wait, ok := limit.allow(r); !ok {
			return nil, tooMany(w, wait)
		}
		return serve(w, r)
	}
}

// Sparing lets each address call what isn't of the API, as often as it may ask for the CA.
func (a *API) Sparing(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if wait, ok := a.plainAsked.allow(r); !ok {
			tooMany(w, wait).write(w, r)
			return
		}
		serve(w, r)
	}
}
