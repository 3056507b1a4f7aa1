package enroll

import (
	"fmt"
	"time"
)

const hintToken = "make a token with `powernode token create` and give it to the node"

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
	case NotYetValid:
		return fmt.Sprintf("the node's certificate begins at %s and this machine's clock says %s", stamp(c.Leaf.NotBefore), stamp(now))
	case Expiring:
		return fmt.Sprintf("the node's certificate ends at %s", stamp(c.Leaf.NotAfter))
	case Expired:
		return fmt.Sprintf("the node's certificate ended at %s and this machine's clock says %s", stamp(c.Leaf.NotAfter), stamp(now))
	case OtherPlatform:
		return fmt.Sprintf("the credentials are for %s, not for %s", c.PlatformURL, wish.PlatformURL)
	case OtherInstance:
		return fmt.Sprintf("the credentials are those of instance %s, not of %s", c.InstanceID, wish.InstanceID)
	case CAMismatch:
		if err != nil {
			return fmt.Sprintf("the node's certificate doesn't lead to the stored CA certificate: %v", err)
		}
		return fmt.Sprintf("the stored CA certificate (%s) isn't the one that was asked for", c.CAs[0].Subject)
	case Valid:
	}
	return ""
}
