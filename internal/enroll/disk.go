package enroll

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// The files of the directory. Each is replaced as a whole, mode 0600.
const (
	unitFile    = "credentials.json"
	pendingFile = "pending.json"
	lockFile    = "lock"

	maxFile = 256 << 10
)

// pending is a key that waits for its certificate. It is on the disk before the first request
// leaves, so that the same key asks again after a lost reply.
type pending struct {
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	KeyPEM  string    `json:"key_pem"`
}

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
	d, err := durable.OpenDir(dir, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return State{Situation: None, Reason: None.reason(nil, Wish{}, now, nil)}, nil
	}
	if err != nil {
		return State{}, fmt.Errorf("open the credentials' directory: %w", err)
	}
	defer d.Close()
	return inspect(d, wish, now)
}

// Load returns the credentials in dir if they are usable now, and otherwise an error that says
// what is wrong and what to do.
func Load(dir string, now time.Time) (*Credentials, error) {
	s, err := Inspect(dir, Wish{}, now)
	switch {
	case err != nil:
		return nil, err
	case !s.Situation.Usable():
		return nil, fault.New(fault.Refuse, fault.Input, hintToken, "read the credentials in %s: %s", dir, s.Reason)
	}
	return s.Credentials, nil
}

func inspect(d *durable.Dir, wish Wish, now time.Time) (State, error) {
	wish, err := wish.normal()
	if err != nil {
		return State{}, err
	}
	var s State
	e := Evidence{Wish: wish, WishedCA: true}
	_, pendingErr := readPending(d)
	if errors.Is(pendingErr, errDisk) {
		return State{}, pendingErr
	}
	s.Pending, e.Pending = pendingErr == nil, pendingErr == nil
	creds, readErr := readUnit(d)
	switch {
	case errors.Is(readErr, fs.ErrNotExist):
		e.Unit = Absent
	case errors.Is(readErr, errDisk):
		return State{}, readErr
	case errors.Is(readErr, errHalf):
		e.Unit = Half
	case readErr != nil:
		e.Unit = Unreadable
	default:
		s.Credentials = creds
		e.Unit, e.NotBefore, e.NotAfter = Whole, creds.Leaf.NotBefore, creds.Leaf.NotAfter
		e.PlatformURL, e.Instance = creds.PlatformURL, strings.ToLower(creds.InstanceID)
		readErr = chains(creds.Leaf, creds.Intermediates, creds.CAs, now)
		e.ChainsToCA = readErr == nil
		if len(wish.CAPEM) > 0 {
			cas, err := nodehttp.ParseCAs(wish.CAPEM)
			if err != nil {
				return State{}, err
			}
			e.WishedCA = shareCA(cas, creds.CAs)
		}
	}
	s.Situation = Judge(e, now)
	s.Reason = s.Situation.reason(s.Credentials, wish, now, readErr)
	return s, nil
}

// errDisk marks an error of the disk, as opposed to one of what is on it.
var errDisk = errors.New("the disk can't be read")

// readJSON reads a file; an error is fs.ErrNotExist, errDisk or about the content. Its text shows
// nothing of the content, which is a key.
func readJSON(d *durable.Dir, name string, v any) error {
	b, err := d.ReadFile(name, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, durable.ErrTooLarge):
		return err
	case errors.Is(err, syscall.EIO), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", errDisk, d.Diagnose(err))
	case err != nil:
		return err
	}
	// Fields that we don't know are a newer agent's, which kept the version because we may ignore them.
	if err := json.Unmarshal(b, v); err != nil {
		return errors.New("it isn't JSON of the right shape")
	}
	return nil
}

func readUnit(d *durable.Dir) (*Credentials, error) {
	var u unit
	if err := readJSON(d, unitFile, &u); err != nil {
		return nil, err
	}
	return u.credentials()
}

// readPending returns the waiting key, or an error: fs.ErrNotExist, errDisk or that it is damaged.
func readPending(d *durable.Dir) (ed25519.PrivateKey, error) {
	var p pending
	if err := readJSON(d, pendingFile, &p); err != nil {
		return nil, err
	}
	if p.Version != unitVersion {
		return nil, fmt.Errorf("its version is %d, and this agent reads %d", p.Version, unitVersion)
	}
	return parseKey([]byte(p.KeyPEM))
}

// pendingKey returns the waiting key after making one where there is none, or only a damaged one,
// which is lost either way.
func pendingKey(d *durable.Dir, now time.Time) (ed25519.PrivateKey, error) {
	key, err := readPending(d)
	if err == nil || errors.Is(err, errDisk) {
		return key, err
	}
	if key, err = newKey(); err != nil {
		return nil, fmt.Errorf("make the node's key: %w", err)
	}
	text, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return key, d.WriteJSON(pendingFile, pending{Version: unitVersion, Created: now.UTC(), KeyPEM: string(text)}, 0o600, "pending-key")
}

// save puts the credentials in place, in one step, and then forgets the waiting key.
func save(d *durable.Dir, c *Credentials) error {
	u, err := c.unit()
	if err != nil {
		return err
	}
	if err := d.WriteJSON(unitFile, u, 0o600, "credentials"); err != nil {
		return err
	}
	return forgetPending(d)
}

func forgetPending(d *durable.Dir) error {
	if err := d.Remove(pendingFile, "pending-done"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// openDir opens the directory, for its owner only, and locks it against other agents until release.
func openDir(ctx context.Context, path string, hook durable.Hook) (d *durable.Dir, release func(), err error) {
	if d, err = durable.MakeDir(path, 0o700, hook); err != nil {
		return nil, nil, fmt.Errorf("open the credentials' directory: %w", err)
	}
	if err := private(d); err != nil {
		d.Close()
		return nil, nil, err
	}
	lock, err := d.Lock(ctx, lockFile, durable.Exclusive)
	if err != nil {
		d.Close()
		return nil, nil, fmt.Errorf("lock the credentials: %w", err)
	}
	release = func() {
		// Closing the descriptor ends the lock, whatever close says.
		_ = lock.Unlock()
		d.Close()
	}
	// What killed writers left behind may hold a key.
	if err := d.Sweep(); err != nil {
		release()
		return nil, nil, fmt.Errorf("clean the credentials' directory: %w", err)
	}
	return d, release, nil
}

// private takes the directory away from everybody else, and refuses one that is somebody else's.
func private(d *durable.Dir) error {
	info, err := d.File().Stat()
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fault.New(fault.Refuse, fault.Policy, "give the directory to the agent's user, or name another",
			"open the credentials' directory %s: it belongs to user %d", d.Path(), st.Uid)
	}
	if info.Mode().Perm() != 0o700 {
		return d.File().Chmod(0o700)
	}
	return nil
}
