package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
)

// Result is how long a change took.
type Result struct {
	// Prepared is the time until the first directory was replaced, Swapped that from then until the
	// last one was.
	Prepared, Swapped time.Duration
	// Directories are the names that were replaced.
	Directories []string
	// Kept are the mount namespaces that go on with the old trees. Beside an error they are those alone that were cut off for the
	// change all the same: what is mounted later at "/", or in what they keep, isn't seen there until their processes are restarted.
	Kept []Namespace
	// Late are those that were just being made when it was looked for such, and that got the new trees upon their own mounts. That is taken
	// back; their processes may see neither the old tree nor the new one, and are to be restarted.
	Late []Namespace
}

// replacement is a top-level directory that is replaced.
type replacement struct {
	change Change
	stack  mount.Table
	// old is the root of what is seen at the name before: of a mount, or the directory itself.
	old *os.File
	// away says that nothing takes its place: the mount is taken away, and then the name.
	away bool
	// tree is what takes its place.
	tree *mount.Mount
	// carried are the mounts inside of the old tree that were mounted inside of the new one too, nested
	// says that there are more inside of those.
	carried []*os.File
	inside  mount.Table
	nested  bool
}

func (r *replacement) close() {
	for _, f := range append(r.carried, r.old) {
		if f != nil {
			f.Close()
		}
	}
	if r.tree != nil {
		r.tree.Close()
	}
}

// swap makes the change, from wherever an earlier one stopped. What it says of namespaces is so beside an error, too.
func (w *work) swap(ctx context.Context) (Result, error) {
	begun := time.Now()
	var result Result
	if err := w.sweepScratch(); err != nil {
		return Result{}, err
	}
	w.sweepNames()
	replaced, err := w.replacements()
	defer func() {
		for _, r := range replaced {
			r.close()
		}
	}()
	if err != nil {
		return Result{}, err
	}
	if err := w.build(ctx, replaced); err != nil {
		return Result{}, err
	}
	for _, r := range replaced {
		result.Directories = append(result.Directories, r.change.Name)
	}
	if result.Kept, err = w.hold(result.Directories); err != nil {
		return result, err
	}
	if err := w.beforeReplace(ctx, replaced); err != nil {
		return result, err
	}
	if err := w.unchanged(replaced); err != nil {
		return result, err
	}
	result.Prepared = time.Since(begun)
	if err := w.replace(replaced); err != nil {
		return result, err
	}
	result.Swapped = time.Since(begun) - result.Prepared
	if err := w.afterReplace(ctx, replaced); err != nil {
		return result, err
	}
	for _, c := range w.spec.Changes {
		if !c.mounts() {
			if err := w.link(c); err != nil {
				return result, err
			}
		}
	}
	if err := w.finish(replaced); err != nil {
		return result, err
	}
	late, err := w.holdLate(result.Directories, result.Kept)
	if err != nil {
		w.spec.Remark("the sandboxes of some processes that were just being started may be open until they are restarted: "+fault.OneLine(err.Error()), "restart them")
	}
	result.Late = late
	return result, nil
}

// beforeReplace has the caller settle what was changed while all this was made ready.
func (w *work) beforeReplace(ctx context.Context, replaced []*replacement) error {
	if w.spec.BeforeReplace == nil || len(replaced) == 0 {
		return nil
	}
	err := w.spec.BeforeReplace(ctx, w.undoing)
	if err != nil && w.undoing {
		w.spec.Remark(fault.OneLine(err.Error()), fault.HintOf(err))
		return nil
	}
	return err
}

// afterReplace has the caller look at what was changed until now over the old root, and decide whether the new one can stay. On the way
// back there is nothing to decide.
func (w *work) afterReplace(ctx context.Context, replaced []*replacement) error {
	if w.spec.AfterReplace == nil || w.undoing || len(replaced) == 0 {
		return nil
	}
	return w.step("layer:check", func() error { return w.spec.AfterReplace(ctx) })
}

// replacements finds the directories that don't show the new root image yet, and sees to it that they
// can be mounted on.
func (w *work) replacements() ([]*replacement, error) {
	var replaced []*replacement
	for _, c := range w.spec.Changes {
		if !c.mounts() {
			continue
		}
		if err := w.collapse(c.Name); err != nil {
			return replaced, err
		}
		r, err := w.replacement(c)
		if err != nil {
			return replaced, err
		}
		if r != nil {
			replaced = append(replaced, r)
		}
	}
	return replaced, nil
}

func (w *work) replacement(c Change) (*replacement, error) {
	table, err := mount.ReadTable()
	if err != nil {
		return nil, err
	}
	r := &replacement{change: c, stack: w.stack(table, c.Name)}
	digest, ok := digestOf(r.stack, w.base)
	if !ok {
		return nil, foreign(c.Name, r.stack[len(r.stack)-1])
	}
	if r.away = c.To.Kind == Absent && w.spare(c.Name); r.away {
		if len(r.stack) == 0 {
			return nil, w.removeDirectory(c.Name)
		}
		r.old, err = w.top(r.stack, c.Name)
		return r, err
	}
	if !etcLayer(r.stack) {
		if err := w.directory(c); err != nil {
			return nil, err
		}
	}
	if digest == w.spec.To.RootDigest && !w.anew || w.undoing && !w.reached(r, digest) {
		return nil, nil
	}
	if _, err := lstat(w.root, c.Name); c.To.Kind == Absent && errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	r.old, err = w.top(r.stack, c.Name)
	return r, err
}

// reached reports whether the change that is undone came to a directory. One that shows neither of the
// two roots is of an earlier change: it was the same in the root between. But what that
// change took away shows the root that is at "/".
func (w *work) reached(r *replacement, digest fsverity.Digest) bool {
	away := r.change.From.Kind == Absent && len(r.stack) == 0 && w.made(r.change.Name)
	return digest == w.spec.From.RootDigest || away
}

// removeDirectory removes a directory that a live change made, if nobody has put anything there.
func (w *work) removeDirectory(name string) error {
	return w.step(name+":rmdir", func() error {
		if err := os.Remove(w.path(name)); err != nil && w.spare(name) {
			return fmt.Errorf("remove /%s: %w", name, err)
		}
		return nil
	})
}

// unchanged makes sure that nobody has mounted or unmounted anything inside of the old trees since the
// mounts there were carried over.
func (w *work) unchanged(replaced []*replacement) error {
	table, err := mount.ReadTable()
	if err != nil {
		return err
	}
	for _, r := range replaced {
		if r.away {
			continue
		}
		inside := insideOf(table, r.seen(w.base).ID.Mount, w.path(r.change.Name))
		other := slices.ContainsFunc(inside, func(e mount.Entry) bool { return !r.has(e) })
		if other || len(inside) != len(r.carried) || len(w.stack(table, r.change.Name)) != len(r.stack) {
			return errChanging
		}
	}
	return nil
}

// leaveGroups keeps the unmounting of the old tree to itself: the copies of the mounts inside of it are
// in the same peer groups, and so may be others, from where the mounts inside of those would be
// unmounted, too.
func (r *replacement) leaveGroups() error {
	if !r.nested {
		return nil
	}
	for _, f := range r.carried {
		if err := makePrivate(f); err != nil {
			return err
		}
	}
	return nil
}

func makePrivate(f *os.File) error {
	attr := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	err := unix.MountSetattr(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr)
	runtime.KeepAlive(f)
	if err != nil {
		return fmt.Errorf("make the mount at %s private: %w", f.Name(), err)
	}
	return nil
}

// replace is the change itself. What can be put beneath another mount, unseen, is put there first.
func (w *work) replace(replaced []*replacement) error {
	for _, r := range replaced {
		if r.away || len(r.stack) == 0 {
			continue
		}
		if err := w.step(r.change.Name+":beneath", func() error { return r.tree.AttachBeneathAt(r.old) }); err != nil {
			return err
		}
	}
	for _, r := range replaced {
		if err := r.leaveGroups(); err != nil {
			return err
		}
	}
	for _, r := range replaced {
		if err := w.uncover(r); err != nil {
			return err
		}
	}
	return nil
}

// uncover has one new tree be seen.
func (w *work) uncover(r *replacement) error {
	if len(r.stack) == 0 {
		// What is mounted inside of the old tree until then is covered by this, and goes nowhere.
		if err := w.step(r.change.Name+":attach", func() error { return r.tree.AttachAt(r.old) }); err != nil {
			return err
		}
		return errors.Join(w.stragglers(r), r.leaveGroups())
	}
	return w.step(r.change.Name+":detach", func() error {
		// They would go with the old tree.
		if err := errors.Join(w.stragglers(r), r.leaveGroups()); err != nil {
			return err
		}
		return mount.Detach(r.old)
	})
}

// finish takes away what is not seen any more.
func (w *work) finish(replaced []*replacement) error {
	for _, r := range replaced {
		if r.away {
			if err := w.removeDirectory(r.change.Name); err != nil {
				return err
			}
			continue
		}
		if len(r.stack) > 0 {
			continue // they went with the mount that they were in
		}
		for _, f := range slices.Backward(r.carried) {
			if err := w.step(r.change.Name+":uncover", func() error { return mount.Detach(f) }); err != nil {
				return err
			}
		}
	}
	return nil
}
