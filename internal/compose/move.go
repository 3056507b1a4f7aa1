package compose

import (
	"maps"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/tree"
)

// maxHops is how many symlinks a path may lead through: the kernel's MAXSYMLINKS.
const maxHops = 40

// maxRounds bounds how often a move may lead to further moves.
const maxRounds = 40

// findMoves finds the directories that symlinks to directories displace, and where they go. What
// moves may change where another link leads, so it looks again until nothing changes.
func (c *composer) findMoves() error {
	for range maxRounds {
		next := make(map[string][]entry)
		c.scan("", c.roots(), next)
		for _, target := range slices.Sorted(maps.Keys(c.moves)) {
			// scan descends only where several directories merge, which a move may bring about
			// anywhere.
			if dirs := c.directoriesAt(target); len(dirs) > 0 {
				c.scan(target, dirs, next)
			}
		}
		for target, entries := range next {
			slices.SortFunc(entries, compareMoved)
			next[target] = slices.CompactFunc(entries, sameMove)
		}
		same := maps.EqualFunc(c.moves, next, func(a, b []entry) bool { return slices.EqualFunc(a, b, sameMove) })
		if c.moves = next; same {
			return nil
		}
	}
	return errEndless()
}

func errEndless() error {
	return fault.New(fault.Refuse, fault.Input, "leave one of the modules out", "compose: the modules' symlinks and directories displace each other without end")
}

func compareMoved(a, b entry) int {
	if a.layer != b.layer {
		return a.layer - b.layer
	}
	return strings.Compare(a.origin, b.origin)
}

func sameMove(a, b entry) bool { return a.layer == b.layer && a.node == b.node && a.origin == b.origin }

// scan adds to next what moves from the directory and below, as far as several merge.
func (c *composer) scan(path string, dirs []entry, next map[string][]entry) {
	dirs = c.withMoves(path, dirs)
	if len(dirs) < 2 {
		return
	}
	for name, found := range together(dirs) {
		if len(found) < 2 {
			continue
		}
		at := join(path, name)
		if found = c.unmasked(at, found, nil); len(found) < 2 {
			continue
		}
		v := c.judge(at, found, newWay())
		for _, e := range v.moves {
			if e.origin == "" {
				e.origin = at
			}
			e.moved = true
			next[v.target] = append(next[v.target], e)
		}
		c.scan(at, v.dirs, next)
	}
}

// withMoves adds what moves to the path, keeping the order by rank; what moved ranks below what
// its module has there anyway.
func (c *composer) withMoves(path string, dirs []entry) []entry {
	moved := c.moves[path]
	if len(moved) == 0 {
		return dirs
	}
	all := slices.Concat(dirs, moved)
	slices.SortStableFunc(all, func(a, b entry) int { return a.layer - b.layer })
	return all
}

// directoriesAt returns the directories that merge at a path, without what moves there.
func (c *composer) directoriesAt(path string) []entry {
	dirs := c.roots()
	if path == "" {
		return dirs
	}
	at := ""
	for name := range strings.SplitSeq(path, "/") {
		dirs = c.withMoves(at, dirs)
		at = join(at, name)
		found := c.candidates(at, name, dirs, nil)
		if len(found) == 0 {
			return nil
		}
		dirs = c.judge(at, found, newWay()).dirs
	}
	return dirs
}

// way is the state of following one symlink, and others that it leads through.
type way struct {
	// hops is how many symlinks may yet be followed.
	hops int
	// judging are the paths whose symlinks are being followed: a way through one of them again
	// would lead round and round.
	judging []string
}

func newWay() *way { return &way{hops: maxHops} }

// resolve follows the target of the symlink at path through whatever the modules make together,
// and returns the path of the directory that it leads to.
func (c *composer) resolve(path, target string, w *way) (string, bool) {
	if w.hops--; w.hops < 0 {
		return "", false
	}
	w.judging = append(w.judging, path)
	defer func() { w.judging = w.judging[:len(w.judging)-1] }()
	todo := strings.Split(target, "/")
	if dir := parent(path); dir != "" && !strings.HasPrefix(target, "/") {
		todo = append(strings.Split(dir, "/"), todo...)
	}
	// trail holds the directories from the root down to where the way has led so far.
	trail := [][]entry{c.withMoves("", c.roots())}
	var done []string
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(done) > 0 {
				trail, done = trail[:len(trail)-1], done[:len(done)-1]
			}
			continue
		}
		at := join(strings.Join(done, "/"), name)
		found := c.candidates(at, name, trail[len(trail)-1], nil)
		if len(found) == 0 || slices.Contains(w.judging, at) {
			return "", false
		}
		v := c.judge(at, found, w)
		if len(v.dirs) > 0 {
			trail, done = append(trail, c.withMoves(at, v.dirs)), append(done, name)
			continue
		}
		link := v.leaf.node
		if w.hops--; w.hops < 0 || link.Kind != tree.Symlink {
			return "", false
		}
		if strings.HasPrefix(link.Target, "/") {
			trail, done = trail[:1], nil
		}
		todo = append(strings.Split(link.Target, "/"), todo...)
	}
	return strings.Join(done, "/"), true
}

func parent(path string) string {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i]
	}
	return ""
}
