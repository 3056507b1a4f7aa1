package change

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Finish implements System. Before the journal goes, what nobody changed takes on what the new root says of it.
func (m *Machine) Finish(ctx context.Context) ([]string, error) {
	var remarks []string
	if s := m.tidies; s != nil {
		remarks = m.tidy(ctx, s.FromTree, s.ToTree)
	}
	if m.tidies != nil {
		if err := m.endReplaced(m.tidies.To.RootDigest, true); err != nil {
			return remarks, err
		}
	}
	m.tidies = nil
	return remarks, live.Finish(m.Place.RunDir, m.Place.Hook)
}

// Root implements System.
func (m *Machine) Root() (mount.ID, error) {
	e, err := mount.At(m.Place.Root)
	return e.ID, err
}

// Recover implements System.
func (m *Machine) Recover(ctx context.Context, current uint64) (Recovered, bool, error) {
	var out Recovered
	from, to, j, here := m.interrupted(&out)
	forward := j.To.Generation == current
	var back settling
	switch {
	case from == nil:
	case forward:
		// All of it is mounted: the generation became current after that. The journal goes with what comes next.
		out.Remarks = append(out.Remarks, m.tidy(ctx, from, to)...)
	default:
		// What was changed since over the new root refers to it.
		back = settling{from: to, to: from, doubt: inDoubt(j)}
		var err error
		if back.but, err = m.showsOld(j); err == nil {
			err = m.settle(ctx, back)
		}
		if err == nil {
			back.left, err = m.dropped(j.To.RootDigest) // they were made over the root that comes back
		}
		if err != nil {
			out.Remarks = append(out.Remarks, notAllBack(err))
		}
	}
	if here {
		if err := m.endReplaced(j.To.RootDigest, forward); err != nil {
			return Recovered{}, false, err
		}
	}
	r, ok, err := live.Recover(ctx, m.place(&out.Remarks), current)
	if err != nil || !ok {
		return Recovered{}, false, err
	}
	if !r.Forward {
		out.CutOff = r.Kept
	}
	if from != nil && !forward {
		out.Remarks = append(out.Remarks, m.mendBack(ctx, back)...)
		out.Remarks = append(out.Remarks, m.tidy(ctx, to, from)...)
	}
	out.Generation, out.Forward = r.Journal.From.Generation, r.Forward
	if r.Forward {
		out.Generation = r.Journal.To.Generation
	}
	return out, true, nil
}

func notAllBack(err error) string {
	return "not all that was changed since the change is taken back with its meaning: " + fault.OneLine(err.Error())
}

// interrupted returns the two sides of a change that somebody left unfinished in this very root; nil where there is none, or where
// its images can't be read: the way back doesn't depend on them. here says whether there is one.
func (m *Machine) interrupted(out *Recovered) (from, to *tree.Node, j live.Journal, here bool) {
	j, err := live.ReadJournal(m.Place.RunDir)
	if err != nil {
		return nil, nil, live.Journal{}, false // package live says so
	}
	base, err := mount.At(m.Place.Root)
	if err != nil || !base.ID.Same(j.Base) {
		return nil, nil, j, false
	}
	if from, err = m.read(j.From.RootDigest); err == nil {
		to, err = m.read(j.To.RootDigest)
	}
	if err != nil {
		out.Remarks = append(out.Remarks, notAllBack(err))
		return nil, nil, j, true
	}
	return from, to, j, true
}

// read returns the tree of a root image, whose bytes are checked first.
func (m *Machine) read(digest fsverity.Digest) (*tree.Node, error) {
	f, err := m.Place.Images.OpenRootImage(digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readImage(f, digest)
}

// showsOld returns the top-level directories of a change that was cut off which show the old root, as they did before it.
func (m *Machine) showsOld(j live.Journal) ([]string, error) {
	s, err := live.Mounted(m.Place.Root)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, c := range j.Changes {
		if digest, _ := s.Of(c.Name); digest != j.To.RootDigest {
			names = append(names, c.Name)
		}
	}
	return names, nil
}

// tidy has directories of the writable layer that nobody changed, which are there because of something in them, take on what the
// root that runs now says of them: a mode that the new one tightens.
func (m *Machine) tidy(ctx context.Context, from, to *tree.Node) []string {
	upper, err := live.OpenUpper(m.Place)
	if err == nil {
		defer upper.Close()
		err = tidyLayer(ctx, upper, delta.Running(m.Place.Root), m.covered(), from, to)
	}
	if m.EtcUpper != "" {
		var etc *os.File
		etc, openErr := os.Open(m.EtcUpper)
		if errors.Is(openErr, fs.ErrNotExist) {
			openErr = nil
		} else if openErr == nil {
			defer etc.Close()
			openErr = tidyLayer(ctx, etc, delta.At(filepath.Join(m.Place.Root, "etc")), nil, etcOf(from), etcOf(to))
		}
		err = errors.Join(err, openErr)
	}
	if err != nil {
		return []string{"directories that were only copied up keep their old mode, owner or attributes: " + fault.OneLine(err.Error())}
	}
	return nil
}

func tidyLayer(ctx context.Context, upper *os.File, view delta.View, covered []string, from, to *tree.Node) error {
	d, err := delta.Scan(ctx, upper, delta.Limits{})
	if err != nil {
		return err
	}
	left := delta.Leftovers(d.Without(covered...), from, to)
	if len(left) == 0 {
		return nil
	}
	troubles, err := delta.Tidy(ctx, view, left)
	errs := []error{err}
	for _, t := range troubles {
		errs = append(errs, fmt.Errorf("%s: %s", t.Path, t.Why))
	}
	return errors.Join(errs...)
}

// etcOf returns the /etc of a root; one that has none has an empty one.
func etcOf(root *tree.Node) *tree.Node {
	if etc := root.Child("etc"); etc != nil && etc.Kind == tree.Directory {
		return etc
	}
	return tree.NewDir(0o755)
}
