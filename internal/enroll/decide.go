package enroll

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/big"
	"time"
)

// Action is one thing that can be done about a situation.
type Action int

// The actions.
const (
	// Use the credentials as they are.
	Use Action = iota
	// UseAndRotate uses them, and has them replaced beside the work that they are used for.
	UseAndRotate
	// Rotate asks for a successor over the certificate itself, now.
	Rotate
	// Renew asks for a successor by proving the old key; the platform's policy decides, or an operator.
	Renew
	// Enroll exchanges a token for a certificate, after finding one where none was given.
	Enroll
	// Refuse says what is missing: nothing can be done by the node alone.
	Refuse
)

var actionTexts = map[Action]string{
	Use: "use", UseAndRotate: "use and rotate", Rotate: "rotate", Renew: "renew", Enroll: "enroll", Refuse: "refuse",
}

// String returns the action in a few words.
func (a Action) String() string {
	if t, ok := actionTexts[a]; ok {
		return t
	}
	return fmt.Sprintf("action %d", int(a))
}

// Token says how a node may come by a bootstrap token.
type Token int

// The ways.
const (
	// NoToken: nobody to ask.
	NoToken Token = iota
	// TokenToFind: sources of identity may have one, or a claim may bring one; what they have may long be used.
	TokenToFind
	// TokenGiven: a person gave one now.
	TokenGiven
)

// Means is what a node has to help itself with.
type Means struct {
	Token Token
	// Now says that a person wants a new certificate, whatever the old one is worth.
	Now bool
	// Shut says that the platform ended a handshake because of the certificate, which leaves no word on it.
	Shut bool
}

// Decide returns what to do about a situation: the first action, and where the platform refuses it
// the next. It is never empty. Nothing is thrown away before a successor is there: each action leaves the
// credentials as they are until it has succeeded.
func Decide(s Situation, m Means) []Action {
	switch s {
	case None, KeyOnly, Damaged, HalfPair, KeyAway, OtherPlatform, OtherInstance, CAMismatch, Revoked:
		// There is nothing of this platform's to prove oneself with, or it was taken back.
		if m.Token == NoToken {
			return []Action{Refuse}
		}
		return []Action{Enroll}
	case Valid, Expiring:
		switch {
		case m.Shut:
			return withToken(m.Token, Renew)
		case m.Now:
			return now(m.Token)
		case s == Expiring:
			return []Action{UseAndRotate}
		}
		return []Action{Use}
	case NotYetValid:
		// The platform judges it by its own clock, and another one would begin even later.
		switch {
		case m.Shut:
			return withToken(m.Token, Renew)
		case m.Now:
			return now(m.Token)
		}
		return []Action{Use}
	case Inactive:
		// The operator may bring the node back: its next good answer forgets it all.
		if m.Token == TokenGiven {
			return []Action{Enroll}
		}
		return []Action{Use}
	case CARolled:
		return withToken(m.Token, Rotate, Renew)
	case Expired, Superseded:
		return withToken(m.Token, Renew)
	}
	return []Action{Refuse}
}

// now replaces a certificate that serves. A platform that doesn't know it any more, since its database is another one,
// takes a token that a person gives.
func now(t Token) []Action {
	if t == TokenGiven {
		return []Action{Rotate, Enroll}
	}
	return []Action{Rotate}
}

// withToken puts enrolling where it belongs: a token that a person gave now comes first, one that is yet to
// be found comes last, since it may be the one that this node used long ago.
func withToken(t Token, actions ...Action) []Action {
	switch t {
	case TokenGiven:
		return append([]Action{Enroll}, actions...)
	case TokenToFind:
		return append(actions, Enroll)
	case NoToken:
	}
	return actions
}

// RenewAt returns when three quarters of a certificate's lifetime are over, as on the existing
// platform.
func RenewAt(notBefore, notAfter time.Time) time.Time {
	return notBefore.Add(notAfter.Sub(notBefore) / 4 * 3)
}

// RotateAt returns when a certificate is to be replaced: at RenewAt, and up to a twentieth of the lifetime
// later, as its serial number has it, so that nodes enrolled together don't rotate together.
func RotateAt(notBefore, notAfter time.Time, serial *big.Int) time.Time {
	twentieth := notAfter.Sub(notBefore) / 20
	if twentieth <= 0 {
		return RenewAt(notBefore, notAfter)
	}
	sum := sha256.Sum256(serial.Bytes())
	share := binary.BigEndian.Uint32(sum[:4])
	return RenewAt(notBefore, notAfter).Add(time.Duration(float64(twentieth) * float64(share) / (1 << 32)))
}

// The bounds of the wait between two attempts to rotate.
const (
	minRotateWait = time.Minute
	maxRotateWait = 6 * time.Hour
)

// RetryIn returns how long to wait after a rotation that failed: a twentieth of what remains of the
// certificate, so that attempts come closer together as its end does.
func RetryIn(now, notAfter time.Time) time.Duration {
	return min(max(notAfter.Sub(now)/20, minRotateWait), maxRotateWait)
}
