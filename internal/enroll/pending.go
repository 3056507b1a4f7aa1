package enroll

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// pending is the keys that wait for a certificate, each for one purpose. A key is on the disk before
// the first request with it leaves, so that the same key asks again after a lost reply. Each purpose has its own:
// a token that was used with one key is of no use with another.
type pending struct {
	Version int `json:"version"`
	waiting     // for an enrollment
	// Rotate and Renew are kept until the next one of their kind has succeeded.
	Rotate *waiting `json:"rotate,omitempty"`
	Renew  *waiting `json:"renew,omitempty"`
}

// waiting is a key that waits.
type waiting struct {
	Created time.Time `json:"created,omitzero"`
	storedKey
}

func (w *waiting) set() bool { return w != nil && w.storedKey != (storedKey{}) }

// purpose is what a key waits for.
type purpose string

const (
	forEnroll purpose = "enroll"
	forRotate purpose = "rotate"
	forRenew  purpose = "renew"
)

// slot returns the key that waits for p; it may be nil.
func (f *pending) slot(p purpose) *waiting {
	switch p {
	case forRotate:
		return f.Rotate
	case forRenew:
		return f.Renew
	case forEnroll:
	}
	return &f.waiting
}

func (f *pending) put(p purpose, w waiting) {
	switch p {
	case forRotate:
		f.Rotate = &w
	case forRenew:
		f.Renew = &w
	case forEnroll:
		f.waiting = w
	}
}

// readPending returns the waiting keys, or an error: fs.ErrNotExist, errDisk or that the file is damaged.
func readPending(d *durable.Dir) (pending, error) {
	var f pending
	if err := readJSON(d, pendingFile, &f); err != nil {
		return pending{}, err
	}
	if f.Version != unitVersion {
		return pending{}, fmt.Errorf("its version is %d, and this agent reads %d", f.Version, unitVersion)
	}
	return f, nil
}

// pendingKey returns the key that waits for p after making one where there is none, or only one that is damaged,
// lost, of another kind, or what current has already.
func pendingKey(ctx context.Context, d *durable.Dir, o Options, p purpose, current *Credentials) (nodeKey, error) {
	f, err := readPending(d)
	if errors.Is(err, errDisk) {
		return nodeKey{}, err
	}
	keys := o.keys()
	kind := o.KeyKind
	if kind == "" && current != nil {
		kind = current.KeyKind()
	}
	if w := f.slot(p); err == nil && w.set() {
		key, err := keys.read(w.storedKey)
		if errors.Is(err, errAway) && kind.fits(key) && fault.KindOf(err) == fault.Retry {
			return nodeKey{}, fmt.Errorf("use the key that waits for its certificate: %w", err)
		}
		if err == nil && kind.fits(key) && (current == nil || !ownKey(current.Leaf, key)) {
			return key, nil
		}
	}
	key, err := keys.create(ctx, kind, o.Log)
	if err != nil {
		return nodeKey{}, err
	}
	f.Version = unitVersion
	f.put(p, waiting{Created: o.now().UTC(), storedKey: key.stored()})
	return key, d.WriteJSON(pendingFile, f, 0o600, "pending-key")
}

// forgetPending ends the wait of the key for p, and with an enrollment that of all.
func forgetPending(d *durable.Dir, p purpose) error {
	f, err := readPending(d)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && errors.Is(err, errDisk) {
		return err
	}
	if p != forEnroll && err == nil && f.slot(forEnroll).set() {
		f.Rotate, f.Renew = nil, nil
		return d.WriteJSON(pendingFile, f, 0o600, "pending-done")
	}
	if err := d.Remove(pendingFile, "pending-done"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// tidy ends the wait of a key that the credentials have: a kill came between the two.
func tidy(d *durable.Dir, c *Credentials, log *slog.Logger) error {
	f, err := readPending(d)
	if err != nil {
		return nil //nolint:nilerr // what can't be read is replaced when a key is needed
	}
	for _, p := range []purpose{forEnroll, forRotate, forRenew} {
		if w := f.slot(p); w.set() && w.storedKey == c.key.stored() {
			log.Debug("the key has its certificate", "purpose", p)
			return forgetPending(d, p)
		}
	}
	return nil
}
