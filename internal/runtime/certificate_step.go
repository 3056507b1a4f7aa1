package runtime

import (
	"time"

	"github.com/powernode/powernode-agent/internal/enroll"
)

// CertificateStep is what is to be done about the node's certificate.
type CertificateStep int

// The steps.
const (
	// CertificateRest: nothing is due.
	CertificateRest CertificateStep = iota
	// CertificateRotate replaces it over itself, CertificateRenew by the old key.
	CertificateRotate
	CertificateRenew
	// CertificateCA has the node follow the platform's CA.
	CertificateCA
)

// Attempts is what became of the attempts at one step. The zero value is none since the last that succeeded.
type Attempts struct {
	Failures int
	Last     time.Time
	// Refused says that the platform said no, rather than nothing. Asked is how long it asked to wait.
	Refused bool
	Asked   time.Duration
}

// CertificateView is everything that the next step follows from.
type CertificateView struct {
	Status enroll.Status
	// Refresh says that the platform asked for a new certificate now, Bundle is the SHA-256 of the CA bundle that it
	// wants nodes to have, "" for nothing.
	Refresh bool
	Bundle  string
	// The attempts at each step.
	Rotate, Renew, CA Attempts
}

// The rhythm of the loop: how often a certificate is looked at that serves, and one that doesn't, which may be
// replaced by hand at any time; and how soon a step is tried again that failed, which doubles up to a bound. A
// rotation that is due by the certificate's age has its own bounds (enroll.RetryIn).
const (
	certificateLook  = 10 * time.Minute
	certificateBad   = time.Minute
	certificateFirst = 30 * time.Second
	certificateMost  = time.Hour
	// certificateSlack is how far a clock may be set back without that being a reason for anything.
	certificateSlack = time.Minute
	// refreshMost bounds the wait where the platform itself asked for a new certificate, as when its CA rolls.
	refreshMost = 15 * time.Minute
)

// NextCertificateStep returns what is due now, or how long to wait before it is asked again.
func NextCertificateStep(now time.Time, v CertificateView) (CertificateStep, time.Duration) {
	wait := certificateLook
	due := func(at time.Time) bool {
		if left := at.Sub(now); left > 0 {
			wait = min(wait, left)
			return false
		}
		return true
	}
	// An attempt by a clock that was ahead is no reason to wait until that time comes again.
	for _, a := range []*Attempts{&v.Rotate, &v.Renew, &v.CA} {
		if a.Last.After(now.Add(certificateSlack)) {
			*a = Attempts{Refused: a.Refused}
		}
	}
	// The CA first: a new certificate may already be the new one's.
	if v.Status.Serial != "" && v.Bundle != "" && v.Bundle != v.Status.CABundleSHA256 && due(v.CA.again()) {
		return CertificateCA, 0
	}
	// Who isn't let in hears of no new CA, and may have missed the certificate's end.
	if v.Status.Shut {
		switch {
		case due(v.CA.again()):
			return CertificateCA, 0
		case due(v.Renew.again()):
			return CertificateRenew, 0
		}
	}
	switch action := enroll.Decide(v.Status.Situation, enroll.Means{})[0]; action {
	case enroll.Use, enroll.UseAndRotate:
		at, retry := v.Status.RotateAt, enroll.RetryIn(v.Rotate.Last, v.Status.NotAfter)
		if v.Refresh {
			at, retry = now, min(retry, refreshMost)
		}
		if v.Rotate.Failures > 0 {
			if next := v.Rotate.Last.Add(max(retry, v.Rotate.Asked)); next.After(at) {
				at = next
			}
		}
		if due(at) {
			return CertificateRotate, 0
		}
	case enroll.Rotate:
		// Where the platform doesn't take the certificate any more, its key may still prove who the node is.
		if v.Rotate.Refused && due(v.Renew.again()) {
			return CertificateRenew, 0
		}
		if due(v.Rotate.again()) {
			return CertificateRotate, 0
		}
	case enroll.Renew:
		if due(v.Renew.again()) {
			return CertificateRenew, 0
		}
	case enroll.Enroll, enroll.Refuse:
		wait = min(wait, certificateBad)
	}
	return CertificateRest, wait
}

// again returns when the step is to be tried again; the zero time for at once.
func (a Attempts) again() time.Time {
	if a.Failures == 0 {
		return time.Time{}
	}
	wait := certificateMost
	if shift := a.Failures - 1; !a.Refused && shift < 7 {
		wait = min(certificateFirst<<shift, certificateMost)
	}
	if a.Asked > 0 {
		wait = a.Asked
	}
	return a.Last.Add(wait)
}
