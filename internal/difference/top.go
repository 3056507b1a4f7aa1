package difference

import (
	"maps"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/tree"
)

// Action is what has to be done with a name in the root directory, which itself can't be swapped.
type Action uint8

// The actions. The zero value is none of them.
const (
	// Swap: a directory in both trees; the new one is put in the place of the old one as a whole.
	Swap Action = iota + 1
	// Create: a name that is new.
	Create
	// Replace: a file, symlink or device that differs, or one where a directory was, or the other way round.
	Replace
	// Remove: a name that is gone.
	Remove
)

var actionNames = [...]string{"", "swap", "create", "replace", "remove"}

func (a Action) String() string { return actionNames[min(int(a), len(actionNames)-1)] }

// MarshalText makes the JSON form.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads the JSON form.
func (a *Action) UnmarshalText(text []byte) error { return parse(a, actionNames[:], text) }

// TopLevel is a name in the root directory that differs or below which something does.
type TopLevel struct {
	// Name has no slash.
	Name   string `json:"name"`
	Action Action `json:"action"`
	// What is what differs about the name itself: Nothing for a directory of which only the content does.
	What What `json:"what,omitempty"`
	// Counts are the paths at and below the name.
	Counts
	// From and To are as in Entry.
	From *tree.Node `json:"-"`
	To   *tree.Node `json:"-"`
}

// topLevel sums up the entries by the name in the root directory that they are at or below.
func topLevel(entries []Entry, from, to *tree.Node) []TopLevel {
	byName := make(map[string]*TopLevel)
	for _, e := range entries {
		name, _, below := strings.Cut(e.Path[1:], "/")
		t := byName[name]
		if t == nil {
			t = &TopLevel{Name: name, From: from.Child(name), To: to.Child(name)}
			t.Action = actionOf(t.From, t.To)
			byName[name] = t
		}
		if !below {
			t.What = e.What
		}
		t.count(e.Kind)
	}
	top := make([]TopLevel, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		top = append(top, *byName[name])
	}
	return top
}

func actionOf(from, to *tree.Node) Action {
	switch {
	case from == nil:
		return Create
	case to == nil:
		return Remove
	case from.Kind == tree.Directory && to.Kind == tree.Directory:
		return Swap
	default:
		return Replace
	}
}
