package aftercare

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Held returns the units with processes whose mount namespace goes on showing the old tree of one of the top-level directories
// given, once the change is made: it has mounts of it of its own, as systemd makes them for ProtectSystem=full and
// ReadOnlyPaths=, on top of what propagates there. A namespace without such mounts (PrivateTmp=) follows. Processes that
// belong to no unit are returned with Unit "".
func (s Scan) Held(ctx context.Context, tops []string) ([]Held, error) {
	t := &tables{proc: s.proc(), known: make(map[uint64]*space)}
	own := t.of(os.Getpid())
	if own == nil {
		return nil, fmt.Errorf("read the mount table of this process in %s", t.proc)
	}
	here := s.mountsOf(own, tops)
	var held []Held
	seen := make(map[string]bool)
	for pid := range t.proc.processes() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		there := t.of(pid)
		if there == nil || there == own {
			continue
		}
		more := excess(s.mountsOf(there, tops), here)
		if len(more) == 0 {
			continue
		}
		unit := t.proc.unit(pid)
		why := fmt.Sprintf("it has a mount of %s of its own, which goes on showing the old one", strings.Join(more, ", "))
		if unit == "" {
			why = fmt.Sprintf("%s (%d) has a mount of %s of its own, which goes on showing the old one", t.proc.name(pid), pid, strings.Join(more, ", "))
		}
		if key := unit + why; !seen[key] {
			seen[key] = true
			held = append(held, Held{Unit: unit, Why: why})
		}
	}
	slices.SortFunc(held, func(a, b Held) int { return strings.Compare(a.Unit+a.Why, b.Unit+b.Why) })
	return held, nil
}

// mountsOf counts the mounts at and below the directories that show what is shown there now, by where they are.
func (s Scan) mountsOf(in *space, tops []string) map[string]int {
	count := make(map[string]int)
	for _, e := range in.byID {
		path, ok := s.View.inside(e.Point)
		if !ok {
			continue
		}
		top, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
		if slices.Contains(tops, top) && deviceOf(e) == s.View.at(path) {
			count[path]++
		}
	}
	return count
}

// excess returns the places at which there are more mounts there than here.
func excess(there, here map[string]int) []string {
	var more []string
	for path, n := range there {
		if n > here[path] {
			more = append(more, path)
		}
	}
	slices.Sort(more)
	return more
}
