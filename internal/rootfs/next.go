package rootfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
)

// NextRoot is where systemd, from version 254 on, looks for another root to go on in when it is
// told to reboot userspace only (systemd-soft-reboot.service(8)). It moves /dev, /proc, /sys and
// /run into it; mounts below /run go along with the first versions, and not with later ones.
const NextRoot = "/run/nextroot"

// nextName is the record of the next root, in the directory of this boot.
const (
	nextName = "next.json"
	nextMax  = 2 << 20
	// nextScratch begins the names of the next roots' scratch directories there.
	nextScratch = "next-"
)

// next is that record.
type next struct {
	RootDigest fsverity.Digest `json:"root_digest"`
	Mount      mount.ID        `json:"mount"`
	// Facts are what the booted system is to know of its boot once it runs in that root.
	Facts json.RawMessage `json:"facts"`
}

// MakeNext makes a root at NextRoot, beside the one that runs, for systemd to go on in. What spec
// says of places is replaced. runDir is the directory of this boot; facts returns the JSON of what
// is to become the facts of the boot there, once Adopt finds that the root is "/".
//
// Whatever is written to /var, /persist and a persistent /etc until the reboot is written for the
// next root too: they are the same directories. A root that was made before gives way.
func MakeNext(ctx context.Context, runDir string, spec Spec, facts func(*Root) ([]byte, error)) (*Root, error) {
	return makeNext(ctx, places{runDir, NextRoot, "/"}, spec, facts)
}

// places are where a next root is made: the directory of this boot, the next root and the one
// that runs.
type places struct{ runDir, next, root string }

func makeNext(ctx context.Context, at places, spec Spec, facts func(*Root) ([]byte, error)) (*Root, error) {
	if err := at.drop(); err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp(at.runDir, nextScratch)
	if err != nil {
		return nil, fmt.Errorf("make the next root: %w", err)
	}
	spec.At, spec.Scratch, spec.Beside = at.next, scratch, true
	r, err := Make(ctx, spec)
	if err != nil {
		removeScratch(scratch)
		return nil, err
	}
	if err := r.writeNext(at.runDir, facts); err != nil {
		r.Unmake()
		removeScratch(scratch)
		return nil, fmt.Errorf("make the next root: %w", err)
	}
	return r, nil
}

func (r *Root) writeNext(runDir string, facts func(*Root) ([]byte, error)) error {
	f, err := facts(r)
	if err != nil {
		return err
	}
	data, err := json.Marshal(next{RootDigest: r.spec.RootDigest, Mount: r.id, Facts: f})
	if err != nil {
		return err
	}
	return writeRun(runDir, nextName, data)
}

// DropNext takes away a next root that systemd was not told to go on in.
func DropNext(runDir string) error { return places{runDir, NextRoot, "/"}.drop() }

func (at places) drop() error {
	if err := os.Remove(filepath.Join(at.runDir, nextName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("drop the next root: %w", err)
	}
	for range 8 { // each covers what was made before
		u, err := mount.UnionAt(at.next)
		if errors.Is(err, mount.ErrNotMounted) || errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		unmakeAt(at.next, mount.Claim{Digest: u.Digest, ID: u.Entry.ID})
	}
	if _, err := mount.At(at.next); err == nil {
		return fault.New(fault.Refuse, fault.Mount, "unmount it", "drop the next root: %s is in use", at.next)
	}
	return dropUppers(at.runDir, at.root)
}

// Adopt makes the facts of the next root those of the boot, in the file factsName of runDir, if
// that root is "/" now, and reports whether it is. The service calls it before it reads the facts.
// The writable layers of roots that are gone are unmounted.
func Adopt(runDir, factsName string) (bool, error) { return adopt(runDir, factsName, "/") }

func adopt(runDir, factsName, root string) (bool, error) {
	dir, err := os.OpenRoot(runDir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("adopt the next root: %w", err)
	}
	defer dir.Close()
	data, err := durable.ReadFile(dir, nextName, nextMax)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	var n next
	if err == nil {
		err = durable.DecodeJSON(data, &n)
	}
	if err != nil {
		return false, fmt.Errorf("adopt the next root: %w", err)
	}
	u, err := mount.UnionAt(root)
	if err != nil || !n.is(u) {
		return false, nil //nolint:nilerr // not a union of ours is not the next root
	}
	if err := writeRun(runDir, factsName, n.Facts); err != nil {
		return false, fmt.Errorf("adopt the next root: %w", err)
	}
	if err := dir.Remove(nextName); err != nil {
		return true, fmt.Errorf("adopt the next root: %w", err)
	}
	return true, dropUppers(runDir, root)
}

// is reports whether the record is about that union. The mount may be another one of the same file
// system by now, whose device number is its own as long as it is mounted anywhere.
func (n next) is(u mount.MountedUnion) bool {
	return u.Digest == n.RootDigest && u.Entry.ID.Major == n.Mount.Major && u.Entry.ID.Minor == n.Mount.Minor
}

// dropUppers unmounts the writable layers in memory that runDir holds, but for the one of the root
// that runs.
func dropUppers(runDir, root string) error {
	table, err := mount.ReadTable()
	if err != nil {
		return err
	}
	u, err := mount.UnionAt(root)
	if err != nil {
		return nil //nolint:nilerr // what the root uses isn't known: all stay
	}
	for _, e := range table {
		below, err := filepath.Rel(runDir, e.Point)
		if err != nil || e.FSType != "tmpfs" || filepath.Base(below) != "upper" {
			continue
		}
		scratch := filepath.Dir(below)
		if scratch != "." && !strings.HasPrefix(scratch, nextScratch) || strings.Contains(scratch, "/") {
			continue
		}
		if strings.HasPrefix(u.Upper, e.Point+"/") {
			continue
		}
		detachAt(e.Point)
		if scratch != "." {
			removeScratch(filepath.Dir(e.Point))
		}
	}
	return nil
}

// removeScratch removes a next root's scratch directory once nothing is mounted there.
func removeScratch(scratch string) {
	_ = os.Remove(filepath.Join(scratch, "upper"))
	_ = os.Remove(scratch)
}

// writeRun replaces a file of the directory of this boot, which needn't outlive the boot.
func writeRun(runDir, name string, data []byte) error {
	temp := filepath.Join(runDir, "."+name)
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(temp, data, 0o444); err != nil {
		return err
	}
	return unix.Rename(temp, filepath.Join(runDir, name))
}
