package mount

import (
	"fmt"
	"strings"
)

// Error is one step of making a mount that the kernel refused.
type Error struct {
	Op     string   // the step, such as "set lowerdir+=/x" or "create"
	FSType string   // the file system's type
	Kernel []string // the kernel's messages, oldest first; often none
	Err    error    // holds the errno
}

// Error returns the step, the errno's text and the kernel's words.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %s: %v", e.FSType, e.Op, e.Err)
	if len(e.Kernel) > 0 {
		text += " (kernel says: " + strings.Join(e.Kernel, "; ") + ")"
	}
	return text
}

// Unwrap returns the errno, or what holds it.
func (e *Error) Unwrap() error { return e.Err }
