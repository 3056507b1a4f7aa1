package delta

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/mount"
)

// mendPrefix begins the names of files that restore makes, and markMends is on those until they have their place. Both together, or
// a metacopy of such a name, are what a kill left.
const (
	mendPrefix = ".powernode-mend-"
	markMends  = "trusted.powernode.mends"
)

// litterName reports whether restore gives files such names.
func litterName(name string) bool {
	rest, ok := strings.CutPrefix(name, mendPrefix)
	return ok && len(rest) == len(rand.Text())
}

// scan looks through the upper, and removes what a kill left of a mend.
func (a *liveActor) scan() (*Delta, error) {
	d, err := Scan(a.ctx, a.upper.File(), Limits{})
	if err != nil {
		return nil, err
	}
	for _, e := range d.Entries {
		if !e.litter {
			continue
		}
		if err := a.removeLitter(e.Path); err != nil {
			return nil, fmt.Errorf("remove %s, which a mend left: %w", e.Path, err)
		}
	}
	d.Entries = slices.DeleteFunc(d.Entries, func(e Entry) bool { return e.litter })
	return d, context.Cause(a.ctx)
}

func (a *liveActor) removeLitter(p string) error {
	top, rest, err := a.dir(p, false)
	if err != nil {
		return err
	}
	dir, err := openDirAt(top, path.Dir(rest))
	if err != nil {
		return ignoreGone(err)
	}
	defer dir.Close()
	remove := func() error { return ignoreGone(unix.Unlinkat(int(dir.Fd()), path.Base(rest), 0)) }
	err = a.upper.Step("settle-mend:sweep", remove)
	if !errors.Is(err, unix.ESTALE) {
		return err
	}
	// It was killed before the union had forgotten what it was.
	if err := mount.ForgetNames(dir); err != nil {
		return err
	}
	return a.upper.Step("settle-mend:sweep", remove)
}
