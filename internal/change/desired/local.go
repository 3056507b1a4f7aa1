package desired

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/reconcile"
)

// LocalName is the file in the directory of record that holds the administrator's word. What it may hold is bounded.
const (
	LocalName = "local.json"
	localMax  = 256 << 10
	wordsMax  = 256
	// priorityMax is the highest effective priority, as on the platform's list.
	priorityMax = 1 << 30
)

// Local is what a node's administrator said on the node itself. Its JSON is that of the file.
type Local struct {
	// Attached run whatever the platform assigns, Detached don't, by name.
	Attached []Attached `json:"attached,omitempty"`
	Detached []string   `json:"detached,omitempty"`
}

// Attached is a module that somebody attached here.
type Attached struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Repository is "host/path", and Digest that of the OCI image manifest, or of an index: what a tag led to when it was
	// attached.
	Repository string `json:"repository"`
	Digest     string `json:"digest"`
	// Priority is the effective one.
	Priority int `json:"priority"`
}

// Assigned returns the module as reconcile takes it.
func (a Attached) Assigned() reconcile.Assigned {
	return reconcile.Assigned{Origin: reconcile.Here, Module: nodeapi.Module{
		Name: a.Name, Version: a.Version, Repository: a.Repository, Digest: a.Digest,
		Priority: a.Priority % module.PriorityStep, EffectivePriority: a.Priority,
	}}
}

// Has returns the attachment of that name.
func (l Local) Has(name string) (Attached, bool) {
	i := slices.IndexFunc(l.Attached, func(a Attached) bool { return a.Name == name })
	if i < 0 {
		return Attached{}, false
	}
	return l.Attached[i], true
}

// Without reports whether a module of that name was detached.
func (l Local) Without(name string) bool { return slices.Contains(l.Detached, name) }

// Attach returns the word with a further attachment, in place of one of the same name.
func (l Local) Attach(a Attached) Local {
	l = l.forget(a.Name)
	l.Attached = append(l.Attached, a)
	return l.sorted()
}

// Detach returns the word with a module taken away: one that is attached here is so no more, and stays away also if the
// platform assigns one of its name.
func (l Local) Detach(name string) Local {
	l = l.forget(name)
	l.Detached = append(l.Detached, name)
	return l.sorted()
}

// Follow returns the word without anything about a module: the platform's word counts.
func (l Local) Follow(name string) Local { return l.forget(name).sorted() }

func (l Local) forget(name string) Local {
	l.Attached = slices.DeleteFunc(slices.Clone(l.Attached), func(a Attached) bool { return a.Name == name })
	l.Detached = slices.DeleteFunc(slices.Clone(l.Detached), func(n string) bool { return n == name })
	return l
}

func (l Local) sorted() Local {
	slices.SortFunc(l.Attached, func(a, b Attached) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(l.Detached)
	return l
}

// As returns the word with what another one says of a module.
func (l Local) As(other Local, name string) Local {
	l = l.Follow(name)
	if a, ok := other.Has(name); ok {
		return l.Attach(a)
	}
	if other.Without(name) {
		return l.Detach(name)
	}
	return l
}

// Equal reports whether both say the same.
func (l Local) Equal(o Local) bool {
	return slices.Equal(l.Attached, o.Attached) && slices.Equal(l.Detached, o.Detached)
}

func (l Local) check() error {
	if len(l.Attached) > wordsMax || len(l.Detached) > wordsMax {
		return fmt.Errorf("it names %d and %d modules, at most %d each are kept", len(l.Attached), len(l.Detached), wordsMax)
	}
	seen := make(map[string]bool)
	name := func(n string) error {
		if err := module.CheckName(n); err != nil {
			return err
		}
		if seen[n] {
			return fmt.Errorf("it names module %s twice", n)
		}
		seen[n] = true
		return nil
	}
	for _, a := range l.Attached {
		if err := errors.Join(name(a.Name), module.CheckVersion(a.Version)); err != nil {
			return err
		}
		if a.Priority < 0 || a.Priority > priorityMax {
			return fmt.Errorf("module %s: %d isn't an effective priority", a.Name, a.Priority)
		}
		ref, err := ociimage.ParseReference(a.Repository + "@" + a.Digest)
		if err != nil {
			return fmt.Errorf("module %s: %w", a.Name, err)
		}
		if ref.Repository != a.Repository || ref.Tag != "" {
			return fmt.Errorf("module %s: %.120q isn't an OCI repository", a.Name, a.Repository)
		}
	}
	for _, n := range l.Detached {
		if err := name(n); err != nil {
			return err
		}
	}
	return nil
}

// ReadLocal returns what the administrator said; a node without the file has heard nothing. The error is of kind Broken:
// whoever goes on without the file would undo what it says.
func ReadLocal(stateDir string) (Local, error) {
	var l Local
	dir, err := os.OpenRoot(stateDir)
	if err != nil {
		return l, fmt.Errorf("read what was attached here: %w", err)
	}
	defer dir.Close()
	data, err := durable.ReadFile(dir, LocalName, localMax)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		l, err = parseLocal(data)
	}
	if err != nil {
		return Local{}, fault.New(fault.Broken, fault.Input, "correct the file, or remove it and attach and detach anew",
			"read what was attached here: %s/%s: %w", stateDir, LocalName, err)
	}
	return l, nil
}

func parseLocal(data []byte) (Local, error) {
	var l Local
	if err := durable.DecodeJSON(data, &l); err != nil {
		return Local{}, err
	}
	if err := l.check(); err != nil {
		return Local{}, err
	}
	return l.sorted(), nil
}

// WriteLocal keeps what the administrator said, durably; nothing said is no file. The labels are "local:…".
func WriteLocal(stateDir string, l Local, hook durable.Hook) error {
	if err := l.check(); err != nil {
		return fault.New(fault.Refuse, fault.Input, "", "keep what was attached here: %w", err)
	}
	dir, err := durable.OpenDir(stateDir, hook)
	if err != nil {
		return err
	}
	defer dir.Close()
	if len(l.Attached) == 0 && len(l.Detached) == 0 {
		if err := dir.Remove(LocalName, "local"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return dir.WriteJSON(LocalName, l.sorted(), 0o600, "local")
}
