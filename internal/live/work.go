package live

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/rootfs"
)

const etcName = "etc"

// work is one change of mounts while it is made.
type work struct {
	spec  Spec
	dir   *durable.Dir // the directory of this boot
	root  *os.File
	base  mount.MountedUnion // the union at "/"
	upper *os.File
	// works are the paths of the work directories that this change made.
	works []string
	// undoing says that the change is the way back of one that was not brought to its end.
	undoing bool
	// journal is what the change's one says.
	journal Journal
	// anew says that what shows the root image that is wanted is replaced, too.
	anew bool
}

// begin opens what a change works on.
func begin(spec Spec) (*work, error) {
	w := &work{spec: spec}
	if err := w.open(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *work) open() (err error) {
	if w.base, err = mount.UnionAt(w.spec.Root); err != nil {
		return err
	}
	if w.base.Upper == "" {
		return fault.New(fault.Refuse, fault.Mount, "let the change be made at the next boot", "%s can't be changed in the running system: it has no writable layer", w.spec.Root)
	}
	if w.dir, err = durable.OpenDir(w.spec.RunDir, w.spec.Hook); err != nil {
		return err
	}
	if w.root, err = openDirectory(w.spec.Root); err != nil {
		return err
	}
	w.upper, err = openUpper(w.root, w.spec.UpperDir, w.base.Upper)
	return err
}

func (w *work) close() {
	for _, f := range []*os.File{w.root, w.upper} {
		if f != nil {
			f.Close()
		}
	}
	if w.dir != nil {
		w.dir.Close()
	}
}

// step runs one labelled operation.
func (w *work) step(what string, do func() error) error { return w.dir.Step("live-"+what, do) }

func (w *work) path(name string) string { return filepath.Join(w.spec.Root, name) }

// below is the reverse of path.
func (w *work) below(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, filepath.Clean(w.spec.Root)), "/")
}

// digestOf returns the root digest of what a stack of mounts on a directory of a union shows, and
// false where that is no mount of ours.
func digestOf(stack mount.Table, base mount.MountedUnion) (fsverity.Digest, bool) {
	if len(stack) == 0 {
		return base.Digest, true
	}
	top := stack[len(stack)-1]
	if u, ok := mount.Ours(top); ok {
		return u.Digest, true
	}
	return rootfs.EtcLayerOf(top)
}

// stack returns the mounts at a top-level directory.
func (w *work) stack(table mount.Table, name string) mount.Table {
	return table.Stack(w.base.Entry.ID.Mount, w.path(name))
}

// collapse unmounts what lies on top of other mounts of ours at a top-level directory: a change that
// was killed leaves the old tree over the new one.
func (w *work) collapse(name string) error {
	for range 64 {
		table, err := mount.ReadTable()
		if err != nil {
			return err
		}
		stack := w.stack(table, name)
		if len(stack) < 2 {
			return nil
		}
		if _, ok := digestOf(stack, w.base); !ok {
			return foreign(name, stack[len(stack)-1])
		}
		f, err := w.top(stack, name)
		if err != nil {
			return err
		}
		err = w.leaveNested(table, stack[len(stack)-1], name)
		if err == nil {
			err = w.step(name+":detach", func() error { return mount.Detach(f) })
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	return fault.New(fault.Broken, fault.Mount, "reboot", "the mounts at /%s don't come to an end", name)
}

// leaveNested is leaveGroups for a mount that a change which was killed carried from.
func (w *work) leaveNested(table mount.Table, top mount.Entry, name string) error {
	for _, e := range insideOf(table, top.ID.Mount, w.path(name)) {
		if len(table.Children(e.ID.Mount)) == 0 {
			continue
		}
		f, err := mount.OpenIn(w.root, w.below(e.Point))
		if err != nil {
			return err
		}
		err = makePrivate(f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// top opens the root of the topmost mount of a stack, or, where there is none, the directory itself,
// and makes sure that it is that one.
func (w *work) top(stack mount.Table, name string) (*os.File, error) {
	f, err := mount.OpenIn(w.root, name)
	if err != nil {
		return nil, err
	}
	want := w.base.Entry
	if len(stack) > 0 {
		want = stack[len(stack)-1]
	}
	id, _, err := mount.Identify(f)
	if err == nil && id.Mount != want.ID.Mount {
		err = errChanging
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// errChanging says that somebody else mounts or unmounts meanwhile.
var errChanging = fault.New(fault.Retry, fault.Mount, "try again", "mounts are being changed by somebody else")

func foreign(name string, e mount.Entry) error {
	return fault.New(fault.Refuse, fault.Mount, "unmount it, or let the change be made at the next boot",
		"/%s can't be changed in the running system: %s from %s is mounted there", name, e.FSType, e.Source)
}

// Swap changes the running root from one root image to another. When it returns nil, the new one is
// what everybody sees, and the journal stays until the caller, having made the new generation
// current, calls Finish, or Undo. When it returns an error, the system is on the root that it was on;
// if that could not be brought about, the error says so, and Recover tries again. The Result is of worth beside an error, too.
func Swap(ctx context.Context, spec Spec) (Result, error) {
	if err := spec.fill(); err != nil {
		return Result{}, err
	}
	w, err := begin(spec)
	if err != nil {
		return Result{}, err
	}
	defer w.close()
	if _, err := readJournal(w.dir); err == nil {
		return Result{}, fault.New(fault.Broken, fault.Mount, "restart powernode-agent.service, which brings it to an end", "an earlier live change isn't finished")
	} else if !errors.Is(err, os.ErrNotExist) {
		return Result{}, err
	}
	if err := w.refuse(); err != nil {
		return Result{}, err
	}
	w.journal = Journal{Version: journalV1, Phase: Swapping, From: spec.From, To: spec.To, Changes: spec.Changes, Base: w.base.Entry.ID}
	if err := w.dir.WriteJSON(JournalName, w.journal, 0o600, "live-begin"); err != nil {
		return Result{}, errors.Join(err, removeJournal(w.dir))
	}
	result, err := w.swapLayer(ctx)
	if err == nil {
		w.journal.Phase = Swapped
		err = w.dir.WriteJSON(JournalName, w.journal, 0o600, "live-done")
	}
	if err != nil {
		w.journal.Phase = Swapping
		back, err := w.undo(ctx, err)
		return cut(result, back), err
	}
	w.tidy()
	return result, nil
}

// undo goes back after an error.
func (w *work) undo(ctx context.Context, cause error) (Result, error) {
	back, err := w.back(context.WithoutCancel(ctx))
	if err != nil {
		return back, fault.New(fault.Broken, fault.Mount, "run powernode-agent status, and reboot if it doesn't come back",
			"%w; and the way back failed: %w", cause, err)
	}
	return back, errors.Join(cause, removeJournal(w.dir))
}

// back brings everything to the From side, wherever the change stopped.
func (w *work) back(ctx context.Context) (Result, error) {
	b := *w
	b.undoing = true
	b.spec.From, b.spec.To = w.spec.To, w.spec.From
	b.spec.Changes = make([]Change, 0, len(w.spec.Changes))
	for _, c := range w.spec.Changes {
		b.spec.Changes = append(b.spec.Changes, c.reverse())
	}
	result, err := b.swap(ctx)
	b.tidy()
	if err == nil {
		w.tookBack()
	}
	return result, err
}
