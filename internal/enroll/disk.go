package enroll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// The files of the directory. Each is replaced as a whole, mode 0600.
const (
	unitFile    = "credentials.json"
	pendingFile = "pending.json"
	lockFile    = "lock"

	maxFile = 256 << 10
)

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
		// The lock has ended, whatever Unlock says.
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
