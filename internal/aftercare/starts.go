package aftercare

import (
	"path"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/tree"
)

// generated looks at the unit files that don't come from the image.
func (w *unitWork) generated() {
	for _, g := range w.Generated {
		if g.From == g.To {
			continue
		}
		w.touched.reload.add("the unit %s differs", g.Name)
		_, runs := w.running[g.Name]
		switch {
		case runs && g.To == "":
			w.stopIt(g.Name, "its module goes away, or has it no longer")
		case runs && !slices.Equal(weighty(parseUnit(g.From)), weighty(parseUnit(g.To))):
			w.restartIt(g.Name, "its module describes it otherwise")
		case !runs && g.Start && g.To != "":
			w.start.add(g.Name, "its module brings it")
		}
	}
}

// starts finds the units that the image newly has others want.
func (w *unitWork) starts() {
	for name := range w.touched.names {
		if !isUnit(name) || w.effective(w.From, name).exists() || !w.effective(w.To, name).exists() {
			continue
		}
		// The link may have been there before the unit.
		for _, by := range w.wanting(name) {
			w.touched.want(name, by)
		}
	}
	slices.Sort(w.touched.order)
	for _, unit := range w.touched.order {
		if _, runs := w.running[unit]; runs {
			continue
		}
		f := w.effective(w.To, unit)
		if f.masked || f.path == "" && !f.local {
			continue
		}
		for _, by := range w.touched.wanted[unit] {
			if _, active := w.running[by]; active {
				w.start.add(unit, "%s wants it", by)
			}
		}
	}
}

// wanting returns the units that want one in the new image.
func (w *unitWork) wanting(unit string) []string {
	var by []string
	for _, dir := range unitDirs {
		at, n := resolve(w.To, dir)
		if n == nil || n.Kind != tree.Directory {
			continue
		}
		for name, sub := range n.Entries() {
			kind := path.Ext(name)
			if kind != ".wants" && kind != ".requires" && kind != ".upholds" || sub.Kind != tree.Directory || sub.Child(unit) == nil {
				continue
			}
			if !w.local(path.Join(at, name, unit)) {
				by = append(by, strings.TrimSuffix(name, kind))
			}
		}
	}
	return by
}
