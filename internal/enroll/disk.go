package enroll

import (
	"context"
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

// readUnit returns the credentials; beside an error that is errAway, too.
func readUnit(d *durable.Dir, keys keyring) (*Credentials, error) {
	var u unit
	if err := readJSON(d, unitFile, &u); err != nil {
		return nil, err
	}
	return u.credentials(keys)
}

// save puts the credentials in place, in one step.
func save(d *durable.Dir, c *Credentials) error {
	return d.WriteJSON(unitFile, c.unit(), 0o600, "credentials")
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
