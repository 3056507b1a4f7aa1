package enroll

import (
	"fmt"
	"time"
)

const hintToken = "make a token with `powernode token create` and give it to the node"

// Hint returns what a person can do about a situation, "" where nothing needs to be done.
func (s Situation) Hint() string {
	switch s {
	case Valid, Expiring, NotYetValid:
		return ""
	case Inactive:
		return "ask who runs the platform whether the node is to come back; it goes on asking by itself"
	case Expired, Superseded:
		return "the node asks for a new certificate by itself; approve it with `powernode node approve`, or " + hintToken
	case CARolled:
		return "the node asks for a new certificate by itself; if the platform refuses, " + hintToken
	case KeyAway:
		return "look whether the TPM is there and enabled; where it is gone for good, " + hintToken
	case None, KeyOnly, HalfPair, Revoked, OtherPlatform, OtherInstance, CAMismatch, Damaged:
	}
	return hintToken
}

// reason puts the situation into words, as the end of a sentence. c is nil unless there is a whole unit;
// err is what reading or verifying it gave.
func (s Situation) reason(c *Credentials, wish Wish, now time.Time, err error) string {
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch s {
	case None:
		return "this node isn't enrolled"
	case KeyOnly:
		return "this node's enrollment was begun and not finished"
	case Damaged, HalfPair:
		return fmt.Sprintf("the file %s is damaged: %v", unitFile, err)
	case KeyAway:
		return err.Error()
	case NotYetValid:
		return fmt.Sprintf("the node's certificate begins at %s and this machine's clock says %s", stamp(c.Leaf.NotBefore), stamp(now))
	case Expiring:
		return fmt.Sprintf("the node's certificate ends at %s", stamp(c.Leaf.NotAfter))
	case Expired:
		if now.Before(c.Leaf.NotAfter) {
			return fmt.Sprintf("the platform said at %s that the node's certificate has ended", stamp(c.said.At))
		}
		return fmt.Sprintf("the node's certificate ended at %s and this machine's clock says %s", stamp(c.Leaf.NotAfter), stamp(now))
	case Revoked:
		return fmt.Sprintf("the platform said at %s that the node's certificate is revoked", stamp(c.said.At))
	case Superseded:
		return fmt.Sprintf("the platform said at %s that a later certificate of this node is in use: these credentials come from a backup, or another machine has a copy", stamp(c.said.At))
	case Inactive:
		return fmt.Sprintf("the platform said at %s that this node is out of service", stamp(c.said.At))
	case OtherPlatform:
		return fmt.Sprintf("the credentials are for %s, not for %s", c.PlatformURL, wish.PlatformURL)
	case OtherInstance:
		return fmt.Sprintf("the credentials are those of instance %s, not of %s", c.InstanceID, wish.InstanceID)
	case CARolled:
		return fmt.Sprintf("the node's certificate doesn't lead to the stored CA certificate: %v", err)
	case CAMismatch:
		return fmt.Sprintf("the stored CA certificate (%s) isn't the one that was asked for", c.CAs[0].Subject)
	case Valid:
	}
	return ""
}
