package enroll

import (
	"fmt"
	"time"
)

// Status is what can be said of the credentials now.
type Status struct {
	Situation Situation
	// Reason says in a sentence's part what is wrong, "" where nothing is; Hint what a person can do.
	Reason, Hint string
	// The rest is zero where there are no credentials. Serial is in hexadecimal digits.
	Serial              string
	NotBefore, NotAfter time.Time
	// RotateAt is when the certificate is to be replaced.
	RotateAt time.Time
	// CABundleSHA256 is that of the CA bundle that the node trusts.
	CABundleSHA256 string
	// Unused says that the certificate is new, and the platform hasn't taken it yet.
	Unused bool
	// Shut says that the platform ended the last handshake because of the certificate.
	Shut bool
	// Key says where the key lives.
	Key KeyKind
}

// Status reads the credentials from the disk and judges them.
func (k *Keeper) Status() (Status, error) {
	state, err := inspectAt(k.o.Dir, Wish{}, k.o.now(), k.o.keys())
	if err != nil {
		return Status{}, err
	}
	s := state.Status()
	k.mu.Lock()
	defer k.mu.Unlock()
	s.Shut = k.shut != nil && k.c != nil && k.shut == k.c.material && k.c.Serial() == s.Serial
	return s, nil
}

// Status returns what can be said of a State.
func (s State) Status() Status {
	out := Status{Situation: s.Situation, Reason: s.Reason, Hint: s.Situation.Hint()}
	if c := s.Credentials; c != nil {
		out.Serial, out.NotBefore, out.NotAfter = c.Serial(), c.Leaf.NotBefore, c.Leaf.NotAfter
		out.RotateAt = RotateAt(c.Leaf.NotBefore, c.Leaf.NotAfter, c.Leaf.SerialNumber)
		out.CABundleSHA256, out.Unused, out.Key = c.CABundleSHA256(), c.previous != nil, c.KeyKind()
	}
	return out
}

// String says it in one line.
func (s Status) String() string {
	if s.Reason == "" {
		return s.Situation.String()
	}
	return fmt.Sprintf("%s: %s", s.Situation, s.Reason)
}
