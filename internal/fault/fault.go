// Package fault gives every error of the project one of three kinds, an area and a remedy.
//
// It promises that whoever handles an error can decide what to do with it without reading its
// text: Retry (the same call may succeed later), Refuse (a policy, a signature or a person's
// input said no; repeating the call changes nothing) or Broken (damaged state or a defect). The
// area tells what part of the work failed; only the command line turns it into an exit code.
// It trusts nothing and imports only the standard library.
package fault

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// Kind says what a caller may do about an error.
type Kind uint8

// The kinds. The zero value is Broken on purpose: an error that nobody classified is a defect.
const (
	Broken Kind = iota
	Retry
	Refuse
)

// String returns "retry", "refuse" or "broken".
func (k Kind) String() string {
	switch k {
	case Retry:
		return "retry"
	case Refuse:
		return "refuse"
	default:
		return "broken"
	}
}

// Area names the part of the work that failed.
type Area uint8

// The areas. The exit code of each is in the table of package cli.
const (
	General     Area = iota // anything without an area of its own
	Input                   // a flag, an argument or a file that a person gave
	Verify                  // a signature, a seal, a digest
	Mount                   // a file system, a mount, the disk
	Service                 // an init action, a systemd unit
	Platform                // the platform or a registry can't be reached or misbehaves
	Policy                  // refused by policy
	Destructive             // refused because it would destroy something
	Partial                 // some of several things failed
)

// Error is an error with its kind, area and remedy.
type Error struct {
	Kind Kind
	Area Area
	// Hint says what the person can do next, as an imperative clause without a full stop
	// ("name the key in trust.yaml"); "" when there is nothing to do.
	Hint string
	// err carries the text and the causes.
	err error
}

// New returns an Error whose text is the format's, in lower case and without a full stop, saying
// what was being done and to what. The format may use %w, as in fmt.Errorf.
func New(kind Kind, area Area, hint, format string, args ...any) error {
	return &Error{Kind: kind, Area: area, Hint: hint, err: fmt.Errorf(format, args...)}
}

// Error returns the text without the hint.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns the error that holds the text, and through it the causes.
func (e *Error) Unwrap() error { return e.err }

// KindOf returns the kind of the outermost Error in err's chain, and Broken where there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Broken
}

// AreaOf returns the area of the outermost Error in err's chain, and General where there is none.
func AreaOf(err error) Area {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Area
	}
	return General
}

// HintOf returns the first hint in err's chain, outermost first, or "".
func HintOf(err error) string {
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.err
	}
	return ""
}

// OneLine returns text from anywhere on one line, with everything that doesn't print (control
// characters, escape sequences, changes of writing direction) escaped, so that nobody's message
// can drive a terminal or pass for a line of its own.
func OneLine(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\n':
			b.WriteString("; ")
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, "\\x%02x", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
