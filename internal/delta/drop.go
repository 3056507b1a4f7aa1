package delta

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// dropped is the list of what was moved aside: the file droppedName there. The entry at index i is under the name of
// droppedPrefix and i.
type dropped struct {
	Paths []string `json:"paths"`
}

const (
	droppedName   = "dropped.json"
	droppedPrefix = "dropped-"
	droppedMax    = 16 << 20
)

// Drop takes local changes out of an upper: the policy "replace". They are moved into aside, a directory in the
// same file system, with the list of them written before; Restore puts them back, Discard removes them for good. A
// path that isn't there is passed over.
//
// A union can't do that itself: what is removed through it leaves a whiteout. And one that has looked a path up
// keeps what it found: the kernel leaves open what a union shows of an upper that is changed beneath it
// (Documentation/filesystems/overlayfs.rst, "Changes to underlying filesystems"), though it never crashes. So the moment
// for it is after the new union was made, detached, where nobody has looked anything up, and before it is attached.
// Until the old one is gone, it shows its image's file or the local one at such a path, and who has the latter open keeps it.
// Whoever is killed in between calls Restore, if the old image is to stay, or Discard.
func Drop(ctx context.Context, upper, aside *durable.Dir, paths []string) error {
	if err := notDropped(aside); err != nil {
		return err
	}
	// What a kill left of a Discard is in nobody's list any more, and would come back as something else by the next one.
	if err := Discard(aside); err != nil {
		return err
	}
	list := dropped{Paths: slices.Clone(paths)}
	slices.Sort(list.Paths)
	list.Paths = slices.CompactFunc(list.Paths, func(a, b string) bool { return a == b || strings.HasPrefix(b, a+"/") })
	for _, p := range list.Paths {
		if p == "/" || path.Clean("/"+p) != p {
			return fault.New(fault.Broken, fault.Mount, "", "drop the local change of %q: want an absolute path", p)
		}
	}
	if err := aside.WriteJSON(droppedName, list, 0o600, "drop-list"); err != nil {
		return fmt.Errorf("drop local changes: %w", err)
	}
	for i, p := range list.Paths {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := moveEntry(upper, aside, p, droppedPrefix+strconv.Itoa(i), false)
		if err != nil && !gone(err) {
			return fmt.Errorf("drop the local change of %s: %w", p, err)
		}
	}
	return syncBoth(upper, aside)
}

// notDropped refuses to write over a list.
func notDropped(aside *durable.Dir) error {
	_, err := readDropped(aside)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = fault.New(fault.Broken, fault.Mount, "", "drop local changes: those that were dropped before are still there")
	}
	return err
}

func readDropped(aside *durable.Dir) (dropped, error) {
	var list dropped
	err := aside.ReadJSON(droppedName, droppedMax, &list)
	return list, err
}

// Dropped returns the paths that Drop moved aside, and that Restore would put back.
func Dropped(aside *durable.Dir) ([]string, error) {
	list, err := readDropped(aside)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return list.Paths, err
}

// Restore puts back what Drop moved aside, where there is something, and nothing else has come to its place since: then
// that stays, and what was dropped goes with Discard. It can be repeated.
func Restore(upper, aside *durable.Dir) error {
	list, err := readDropped(aside)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("put local changes back: %w", err)
	}
	for i, p := range list.Paths {
		err := moveEntry(upper, aside, p, droppedPrefix+strconv.Itoa(i), true)
		if err != nil && !gone(err) && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("put the local change of %s back: %w", p, err)
		}
	}
	if err := syncBoth(upper, aside); err != nil {
		return err
	}
	return Discard(aside)
}

// Discard removes what Drop moved aside for good. It can be repeated.
func Discard(aside *durable.Dir) error {
	names, err := aside.Names()
	if err != nil {
		return fmt.Errorf("remove dropped changes: %w", err)
	}
	// The list goes first: without it, nothing is put back.
	if err := aside.Remove(droppedName, "drop-list"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove dropped changes: %w", err)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, droppedPrefix) {
			continue
		}
		err := aside.Step("drop-discard:remove", func() error { return aside.Root().RemoveAll(name) })
		if err != nil {
			return fmt.Errorf("remove dropped changes: %w", aside.Diagnose(err))
		}
	}
	return aside.Sync("drop-discard")
}

// moveEntry moves an entry of the upper aside, or back.
func moveEntry(upper, aside *durable.Dir, p, name string, back bool) error {
	dir, err := openDirAt(upper.File(), below(path.Dir(p)))
	if err != nil {
		return err
	}
	defer dir.Close()
	from, fromName, to, toName := dir.Fd(), path.Base(p), aside.File().Fd(), name
	what := "drop:move"
	if back {
		from, fromName, to, toName = to, toName, from, fromName
		what = "drop:restore"
	}
	return upper.Diagnose(upper.Step(what, func() error {
		return unix.Renameat2(int(from), fromName, int(to), toName, unix.RENAME_NOREPLACE)
	}))
}

func syncBoth(upper, aside *durable.Dir) error {
	return errors.Join(upper.SyncFS("drop"), aside.Sync("drop"))
}
