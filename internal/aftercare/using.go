package aftercare

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/difference"
)

// Scan looks for processes by the files that they use. Processes that begin or end meanwhile are no error, and the
// scanning process itself isn't looked at.
type Scan struct {
	// Proc is where the kernel's proc is; "" is /proc.
	Proc string
	// View is what is shown now.
	View View
}

func (s Scan) proc() procfs {
	if s.Proc == "" {
		return "/proc"
	}
	return procfs(s.Proc)
}

// each calls do with each process in the order of their numbers, and what it uses.
func (s Scan) each(ctx context.Context, wanted func(path string) bool, look func(*Process, []ref)) ([]Process, error) {
	t := &tables{proc: s.proc(), known: make(map[uint64]*space)}
	var found []Process
	for pid := range t.proc.processes() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if pid == os.Getpid() {
			continue
		}
		p := Process{PID: pid}
		if look(&p, t.refs(pid, wanted)); len(p.Uses) > 0 {
			p.Name, p.Unit = t.proc.name(pid), t.proc.unit(pid)
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b Process) int { return a.PID - b.PID })
	return found, nil
}

// Using returns the processes that use what a change, which hasn't happened yet, replaces or removes. local is as Input.Local.
func (s Scan) Using(ctx context.Context, d *difference.Difference, local func(path string) bool) ([]Process, error) {
	differs := func(path string) bool {
		path, ok := s.View.inside(path)
		if !ok || local != nil && local(path) {
			return false
		}
		e, ok := d.Entry(path)
		return ok && e.Kind != difference.Added && (e.Kind == difference.Removed || e.What >= difference.Content)
	}
	// Who works in a directory goes on seeing the old one, whatever of it differs.
	wanted := func(path string) bool {
		if differs(path) {
			return true
		}
		path, ok := s.View.inside(path)
		return ok && path != "/" && len(d.Below(path)) > 0
	}
	return s.each(ctx, wanted, func(p *Process, refs []ref) {
		for _, r := range refs {
			path, ok := s.View.inside(r.path)
			if ok && r.attached && r.dev == s.View.at(path) && (r.how == AsDirectory || differs(r.path)) {
				p.add(path, r.how)
			}
		}
	})
}

// Stale returns the processes that use files of a union of ours which no longer shows them, where what is there now
// differs: after live changes. A directory of such a union counts whatever is in it.
//
// It goes by what the kernel shows of a file (seen on Linux 6.18): while its mount is in the tree, covered by another, its path is
// as it was; once the mount was taken out, its path begins at that mount's own root, so that /usr/bin/nginx is /bin/nginx. In
// both cases the device is the old union's, which no other file system has.
func (s Scan) Stale(ctx context.Context) ([]Process, error) {
	c := &comparison{view: s.View, budget: compareMax, known: make(map[identity]bool)}
	anything := func(path string) bool { return strings.HasPrefix(path, "/") }
	return s.each(ctx, anything, func(p *Process, refs []ref) {
		for _, r := range refs {
			if path, stale := c.stale(r); stale {
				p.add(path, r.how)
			}
		}
	})
}
