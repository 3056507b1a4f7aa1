package live

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
)

// Obstacle is why a change can't be made in the running system; it can at the next boot.
type Obstacle struct {
	// Name is the top-level directory, "" where it is about the whole.
	Name string `json:"name,omitempty"`
	Why  string `json:"why"`
	Hint string `json:"hint,omitempty"`
}

// Submount is a mount that lies inside of a directory that is replaced, and goes along.
type Submount struct {
	Point  string `json:"point"`
	FSType string `json:"fstype"`
	Source string `json:"source"`
}

// Report is what is to be known before a change.
type Report struct {
	// Obstacles say why it can't be made; none says that nothing speaks against it.
	Obstacles []Obstacle `json:"obstacles,omitempty"`
	// Directories are those that are replaced.
	Directories []string `json:"directories,omitempty"`
	// Submounts go along. Elsewhere are mounts in other places of this namespace that show part of a
	// directory: they show the old tree until they are made anew.
	Submounts []Submount `json:"submounts,omitempty"`
	Elsewhere []Submount `json:"elsewhere,omitempty"`
	// Namespaces go on with the old tree until their processes are restarted.
	Namespaces []Namespace `json:"namespaces,omitempty"`
}

// Check looks what a change would come upon. It changes nothing. The error is about looking, and not
// about what was seen.
func Check(spec Spec) (Report, error) {
	if err := spec.Place.fill(); err != nil {
		return Report{}, err
	}
	var r Report
	if err := beneath(); err != nil {
		r.add("", fault.New(fault.Refuse, fault.Mount, "run Linux 6.5 or newer", "mounts can't be put beneath others: %w", err))
	}
	w, err := begin(spec)
	if err != nil && fault.KindOf(err) == fault.Refuse {
		r.add("", err)
		return r, nil
	}
	if err != nil {
		return Report{}, err
	}
	defer w.close()
	table, err := mount.ReadTable()
	if err != nil {
		return Report{}, err
	}
	w.look(&r, table)
	for _, v := range w.views(table, r.Directories) {
		for _, e := range table {
			if v.has(e) && !below(e.Point, v.path) {
				r.Elsewhere = append(r.Elsewhere, Submount{Point: e.Point, FSType: e.FSType, Source: e.Source})
			}
		}
	}
	r.Namespaces, err = w.namespaces(r.Directories)
	return r, err
}

// look finds the obstacles.
func (w *work) look(r *Report, table mount.Table) {
	for _, c := range w.spec.Changes {
		if why := c.possible(); why != "" {
			r.Obstacles = append(r.Obstacles, Obstacle{Name: c.Name, Why: fmt.Sprintf("/%s can't be changed in the running system: %s", c.Name, why)})
			continue
		}
		if c.mounts() {
			w.lookAt(r, table, c)
		}
	}
}

// refuse returns the first obstacle as an error, before anything is changed.
func (w *work) refuse() error {
	table, err := mount.ReadTable()
	if err != nil {
		return err
	}
	var r Report
	w.look(&r, table)
	for _, o := range r.Obstacles {
		return fault.New(fault.Refuse, fault.Mount, cmp.Or(o.Hint, atBoot), "%s", o.Why)
	}
	return nil
}

// atBoot is the remedy where there is no other.
const atBoot = "let the change be made at the next boot"

func (r *Report) add(name string, err error) {
	r.Obstacles = append(r.Obstacles, Obstacle{Name: name, Why: err.Error(), Hint: fault.HintOf(err)})
}

func (w *work) lookAt(r *Report, table mount.Table, c Change) {
	if c.Name == "boot" {
		r.Obstacles = append(r.Obstacles, Obstacle{Name: c.Name, Why: "/boot can't be changed in the running system: the machine boots by it"})
		return
	}
	stack := w.stack(table, c.Name)
	if _, ok := digestOf(stack, w.base); !ok {
		r.add(c.Name, foreign(c.Name, stack[len(stack)-1]))
		return
	}
	info, err := lstat(w.root, c.Name)
	switch {
	case errors.Is(err, unix.ENOENT):
		if c.To.Kind == Directory {
			r.Directories = append(r.Directories, c.Name)
		}
		return
	case err != nil:
		r.add(c.Name, err)
		return
	case info.Mode&unix.S_IFMT != unix.S_IFDIR:
		r.add(c.Name, notDirectory(c.Name))
		return
	}
	r.Directories = append(r.Directories, c.Name)
	shown := &replacement{change: c, stack: stack}
	for _, e := range insideOf(table, shown.seen(w.base).ID.Mount, w.path(c.Name)) {
		switch {
		case e.FSType == "autofs" || len(table.Stack(e.ID.Mount, e.Point)) > 0:
			r.add(c.Name, stacked(e))
		case !w.remains(c, w.below(e.Point)):
			r.add(c.Name, placeless(e, unix.ENOENT))
		default:
			r.Submounts = append(r.Submounts, Submount{Point: e.Point, FSType: e.FSType, Source: e.Source})
		}
	}
}

// remains reports whether the place of a submount is in the new root image, or in the upper.
func (w *work) remains(c Change, path string) bool {
	if w.spec.Tree != nil && w.spec.Tree.Lookup(path) != nil || w.spec.Tree == nil && c.To.Kind == Directory {
		return true
	}
	_, err := os.Lstat(filepath.Join(w.upper.Name(), path))
	return err == nil
}

// beneath asks whether the kernel can do what all this is about.
func beneath() error {
	abilities := mount.ProbeBeneath()
	if !abilities.OK {
		return errors.New(abilities.Reason)
	}
	return nil
}

func notDirectory(name string) error {
	return fault.New(fault.Refuse, fault.Destructive, "remove it, or let the change be made at the next boot", "/%s is not a directory here", name)
}

func stacked(e mount.Entry) error {
	return fault.New(fault.Refuse, fault.Mount, "unmount the upper one, or let the change be made at the next boot",
		"two mounts lie one upon the other at %s, or it is mounted on demand", e.Point)
}

func placeless(e mount.Entry, err error) error {
	return fault.New(fault.Refuse, fault.Mount, "unmount it, or let the change be made at the next boot",
		"%s from %s is mounted at %s, which the new root image doesn't have: %w", e.FSType, e.Source, e.Point, err)
}
