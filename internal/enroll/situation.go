package enroll

import (
	"fmt"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// Situation is what the disk holds of a node's credentials, judged against a clock, against what
// the platform said of them last, and against what a person asked for.
type Situation int

// The situations.
const (
	// None: nothing is there.
	None Situation = iota
	// KeyOnly: a key waits for its certificate; the enrollment was begun and not finished.
	KeyOnly
	// Valid: key and certificate belong together and the certificate is in force.
	Valid
	// HalfPair: the key or the certificate is missing, or they don't belong together.
	HalfPair
	// KeyAway: the key is in a TPM that doesn't know it, or doesn't answer.
	KeyAway
	// NotYetValid: the certificate begins in the future, so this machine's clock is behind.
	NotYetValid
	// Expiring: three quarters of the certificate's lifetime are over.
	Expiring
	// Expired: the certificate has ended, by this machine's clock or by the platform's word.
	Expired
	// Revoked: the platform said that it took the certificate back.
	Revoked
	// Superseded: the platform said that the certificate's successor has been used: these
	// credentials come from a backup, or another machine has a copy.
	Superseded
	// Inactive: the platform said that the operator took the node out of service.
	Inactive
	// OtherPlatform: the credentials are for another platform than was asked for.
	OtherPlatform
	// OtherInstance: the credentials are another instance's than was asked for.
	OtherInstance
	// CARolled: the certificate doesn't lead to any CA that the node trusts now.
	CARolled
	// CAMismatch: the stored CA isn't the one that was asked for.
	CAMismatch
	// Damaged: the file can't be read as credentials at all.
	Damaged
)

var situationTexts = map[Situation]string{
	None: "none", KeyOnly: "key only", Valid: "valid", HalfPair: "half pair", KeyAway: "key away", NotYetValid: "not yet valid",
	Expiring: "expiring", Expired: "expired", Revoked: "revoked", Superseded: "superseded", Inactive: "inactive",
	OtherPlatform: "other platform", OtherInstance: "other instance", CARolled: "CA rolled", CAMismatch: "CA mismatch", Damaged: "damaged",
}

// String returns the situation in one or two words: "key only".
func (s Situation) String() string {
	if t, ok := situationTexts[s]; ok {
		return t
	}
	return fmt.Sprintf("situation %d", int(s))
}

// MarshalText returns what String returns.
func (s Situation) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Usable reports whether the credentials serve as they are: what Decide says to do without a token and
// without haste is to use them.
func (s Situation) Usable() bool {
	switch Decide(s, Means{})[0] {
	case Use, UseAndRotate:
		return true
	case Rotate, Renew, Enroll, Refuse:
	}
	return false
}

// Evidence is everything that a Situation is judged from.
type Evidence struct {
	// Unit says how much of the credentials is there.
	Unit UnitState
	// Pending says that a key waits for its certificate.
	Pending bool
	// ChainsToCA says that the certificate leads to a stored CA. It and the rest say
	// something only of a Whole unit.
	ChainsToCA            bool
	NotBefore, NotAfter   time.Time
	PlatformURL, Instance string
	// Said is the code of the platform's last word on the certificate; "" for none, or a good one.
	Said nodeapi.Code
	// Wish is what a person asked for; WishedCA says that the stored CA is the wished one, or
	// that none was wished.
	Wish     Wish
	WishedCA bool
}

// UnitState says how much of the credentials the disk holds.
type UnitState int

// The states.
const (
	Absent     UnitState = iota // no file
	Unreadable                  // a file that isn't credentials
	Half                        // key or certificate missing, or of different pairs
	Away                        // the key is out of reach
	Whole                       // everything
)

// Wish is what a person asked for explicitly, by a flag. An empty field is no wish. What a source of
// identity says is no wish either: usable credentials come before it, so that a node needs nothing but its
// disk once it is enrolled.
type Wish struct {
	PlatformURL string
	InstanceID  string
	CAPEM       []byte
}

// normal returns the wish in the forms that are stored.
func (w Wish) normal() (Wish, error) {
	w.InstanceID = strings.ToLower(w.InstanceID)
	if w.PlatformURL == "" {
		return w, nil
	}
	url, err := nodehttp.ParsePlatformURL(w.PlatformURL)
	w.PlatformURL = url
	return w, err
}

// Judge names the situation. Whose the credentials are counts before what the platform said of them, and
// that before how old they are: expired ones of another platform are that platform's.
func Judge(e Evidence, now time.Time) Situation {
	switch e.Unit {
	case Absent:
		if e.Pending {
			return KeyOnly
		}
		return None
	case Unreadable:
		return Damaged
	case Half:
		return HalfPair
	case Away:
		return KeyAway
	case Whole:
	}
	switch {
	case e.Wish.PlatformURL != "" && e.Wish.PlatformURL != e.PlatformURL:
		return OtherPlatform
	case e.Wish.InstanceID != "" && e.Wish.InstanceID != e.Instance:
		return OtherInstance
	case !e.WishedCA:
		return CAMismatch
	case e.Said == nodeapi.CodeCertificateRevoked:
		return Revoked
	case e.Said == nodeapi.CodeCertificateSuperseded:
		return Superseded
	case e.Said == nodeapi.CodeNodeInactive:
		return Inactive
	case !now.Before(e.NotAfter), e.Said == nodeapi.CodeCertificateExpired:
		// Also of one that begins in the future, as one does that a platform issued whose clock was ahead.
		return Expired
	case now.Before(e.NotBefore):
		return NotYetValid
	case !e.ChainsToCA:
		return CARolled
	case !now.Before(RenewAt(e.NotBefore, e.NotAfter)):
		return Expiring
	default:
		return Valid
	}
}
