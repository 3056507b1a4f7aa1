package enroll

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// State is what a directory of credentials holds.
type State struct {
	Situation Situation
	// Credentials are nil where there is no whole unit; where there is, they may still not be usable.
	Credentials *Credentials
	// Pending says that a key waits for its certificate.
	Pending bool
	// Reason says in a sentence's part what is wrong, "" where nothing is.
	Reason string
}

// Inspect reads a directory of credentials and changes nothing. A directory that doesn't exist
// holds none. The error is of reading the disk; damaged credentials are a Situation.
func Inspect(dir string, wish Wish, now time.Time) (State, error) {
	return inspectAt(dir, wish, now, keyring{TPMAt("")})
}

func inspectAt(dir string, wish Wish, now time.Time, keys keyring) (State, error) {
	d, err := durable.OpenDir(dir, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return State{Situation: None, Reason: None.reason(nil, Wish{}, now, nil)}, nil
	}
	if err != nil {
		return State{}, fmt.Errorf("open the credentials' directory: %w", err)
	}
	defer d.Close()
	return inspect(d, wish, now, keys)
}

// Load returns the credentials in dir if they are usable now, and otherwise an error that says
// what is wrong and what to do.
func Load(dir string, now time.Time) (*Credentials, error) {
	s, err := Inspect(dir, Wish{}, now)
	switch {
	case err != nil:
		return nil, err
	case !s.Situation.Usable():
		return nil, s.refusal("read the credentials in " + dir)
	}
	return s.Credentials, nil
}

// refusal says that the credentials don't serve for what was being done.
func (s State) refusal(doing string) error {
	return fault.New(fault.Refuse, fault.Input, s.Situation.Hint(), "%s: %s", doing, s.Reason)
}

func inspect(d *durable.Dir, wish Wish, now time.Time, keys keyring) (State, error) {
	wish, err := wish.normal()
	if err != nil {
		return State{}, err
	}
	var s State
	e := Evidence{Wish: wish, WishedCA: true}
	waiting, pendingErr := readPending(d)
	if errors.Is(pendingErr, errDisk) {
		return State{}, pendingErr
	}
	s.Pending = pendingErr == nil && waiting.slot(forEnroll).set()
	e.Pending = s.Pending
	creds, readErr := readUnit(d, keys)
	s.Credentials = creds
	switch {
	case errors.Is(readErr, fs.ErrNotExist):
		e.Unit = Absent
	case errors.Is(readErr, errDisk):
		return State{}, readErr
	case errors.Is(readErr, errAway):
		e.Unit = Away
	case errors.Is(readErr, errHalf):
		e.Unit = Half
	case readErr != nil:
		e.Unit = Unreadable
	default:
		e.Unit = Whole
		if readErr, err = e.weigh(creds, now); err != nil {
			return State{}, err
		}
	}
	s.Situation = Judge(e, now)
	s.Reason = s.Situation.reason(s.Credentials, wish, now, readErr)
	return s, nil
}

// weigh takes down what whole credentials are worth. chain is why the certificate leads to no stored CA, nil
// where it does.
func (e *Evidence) weigh(c *Credentials, now time.Time) (chain, err error) {
	e.NotBefore, e.NotAfter, e.Said = c.Leaf.NotBefore, c.Leaf.NotAfter, c.saidCode()
	e.PlatformURL, e.Instance = c.PlatformURL, strings.ToLower(c.InstanceID)
	chain = chains(c.Leaf, c.Intermediates, c.CAs, now)
	e.ChainsToCA = chain == nil
	if len(e.Wish.CAPEM) > 0 {
		cas, err := nodehttp.ParseCAs(e.Wish.CAPEM)
		if err != nil {
			return nil, err
		}
		e.WishedCA = shareCA(cas, c.CAs)
	}
	return chain, nil
}
