package services

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// Where things lie below /run. systemd looks for units of the running boot in unitDir (systemd.unit(5)): they go before those
// of the root's /usr/lib, and after those of its /etc.
const (
	unitDir    = "systemd/system"
	controlDir = "systemd/system.control"
	placedName = "powernode/services.json"

	placedMax = 4 << 20
	unitMax   = 1 << 20
	unitsMax  = 20_000
)

// Changes are the units that a Set changes, and what follows for those that run. All are sorted but Restart and Start, which
// are in the order of dependencies.
type Changes struct {
	Added   []string `json:"added,omitempty"`
	Changed []string `json:"changed,omitempty"`
	Removed []string `json:"removed,omitempty"`
	// Stop is to be stopped before systemd reads its units again; Restart and Start come after that. A service is restarted
	// where what it runs as changes, and not where only its neighbours do.
	Stop    []string `json:"stop,omitempty"`
	Restart []string `json:"restart,omitempty"`
	Start   []string `json:"start,omitempty"`
	// Refused are the modules of the Set that get no units, because a file that somebody else made has the name of one.
	Refused []Refusal `json:"refused,omitempty"`
}

// None reports whether nothing changes.
func (c Changes) None() bool { return len(c.Added)+len(c.Changed)+len(c.Removed) == 0 }

// Diff says what Place would change, and changes nothing.
func Diff(run string, set Set) (Changes, error) {
	p, err := openPlace(run)
	if err != nil {
		return Changes{}, err
	}
	defer p.root.Close()
	c, _, err := p.diff(set)
	return c, err
}

// Place makes the units of a Set those of the running system: run, which is or becomes its /run, has them in systemd's
// directory afterwards, and none of modules that are no longer there. Only files that an earlier Place wrote are replaced or
// removed. A module one of whose units would take another file's place is refused, in the record too, and gets none; the others get theirs, and
// the error is in area Partial. systemd hears of it by a daemon-reload, which is the caller's, as is stopping, restarting and starting; Apply does it all.
func Place(run string, set Set) (Changes, error) {
	p, err := openPlace(run)
	if err != nil {
		return Changes{}, err
	}
	defer p.root.Close()
	changes, err := p.place(set)
	if err != nil {
		return changes, fault.New(fault.Broken, fault.Service, "see whether the disk or memory below /run is full", "place the units of modules: %w", err)
	}
	return changes, partly(changes.Refused)
}

// Placed returns the Set that was placed last, without the text of its units. The error wraps fs.ErrNotExist where none was.
func Placed(run string) (Set, error) {
	root, err := os.OpenRoot(run)
	if err != nil {
		return Set{}, err
	}
	defer root.Close()
	data, err := readWhole(root, placedName, placedMax)
	if err != nil {
		return Set{}, fmt.Errorf("read which services were placed: %w", err)
	}
	var set Set
	if err := durable.DecodeJSON(data, &set); err != nil {
		return Set{}, fmt.Errorf("read which services were placed: %w", err)
	}
	return set, nil
}

type placer struct{ root *os.Root }

func openPlace(run string) (placer, error) {
	root, err := os.OpenRoot(run)
	if err != nil {
		return placer{}, fmt.Errorf("place the units of modules: %w", err)
	}
	return placer{root}, nil
}

// ours returns the unit files that an earlier Place wrote.
func (p placer) ours() (map[string][]byte, error) {
	entries, err := fs.ReadDir(p.root.FS(), unitDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	found := make(map[string][]byte)
	for _, e := range entries[:min(len(entries), unitsMax)] {
		if UnitModule(e.Name()) == "" || !e.Type().IsRegular() {
			continue
		}
		text, err := readWhole(p.root, path.Join(unitDir, e.Name()), unitMax)
		if err != nil {
			return nil, err
		}
		if bytes.HasPrefix(text, []byte(marker)) {
			found[e.Name()] = text
		}
	}
	return found, nil
}

// diff returns what a Set changes, and what of it can be placed.
func (p placer) diff(set Set) (Changes, Set, error) {
	var c Changes
	have, err := p.ours()
	if err != nil {
		return c, set, err
	}
	if set, c.Refused, err = p.free(set, have); err != nil {
		return c, set, err
	}
	c.compare(have, set.Units())
	return c, set, nil
}

// compare fills in what follows from the files that are there, of which it takes away what stays.
func (c *Changes) compare(have map[string][]byte, units []Unit) {
	// moved are the services that begin anew, of whose helpers nothing more is to be said.
	moved := make(map[string]bool)
	for _, u := range units {
		text, there := have[u.Name]
		delete(have, u.Name)
		service := u.Module + "_" + u.Service
		switch {
		case !there:
			c.Added = append(c.Added, u.Name)
			if u.Main() || !moved[service] && u.Kind != KindHealth {
				c.Start = append(c.Start, u.Name)
			}
			moved[service] = moved[service] || u.Main()
		case !bytes.Equal(text, u.Text):
			c.Changed = append(c.Changed, u.Name)
			if u.Main() && !bytes.Equal(program(text), program(u.Text)) {
				moved[service] = true
				c.Restart = append(c.Restart, u.Name)
			}
			if !moved[service] && (u.Kind == KindHealthTimer || u.Kind == KindEgress || u.Kind == KindEgressTimer) {
				c.Restart = append(c.Restart, u.Name)
			}
		}
	}
	for name := range have {
		c.Removed = append(c.Removed, name)
	}
	slices.Sort(c.Removed)
	c.Stop = c.Removed
	slices.Sort(c.Added)
	slices.Sort(c.Changed)
}

// program is what of a unit's text its processes depend on.
func program(text []byte) []byte {
	_, after, _ := bytes.Cut(text, []byte("\n[Service]\n"))
	return after
}

func (p placer) place(set Set) (Changes, error) {
	c, set, err := p.diff(set)
	if err != nil {
		return c, err
	}
	// The record first: who reads it finds a unit that isn't there yet, and never one that it doesn't know.
	record, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return c, err
	}
	if err := writeWhole(p.root, placedName, append(record, '\n')); err != nil {
		return c, err
	}
	for _, u := range set.Units() {
		if slices.Contains(c.Added, u.Name) || slices.Contains(c.Changed, u.Name) {
			if err := writeWhole(p.root, path.Join(unitDir, u.Name), u.Text); err != nil {
				return c, err
			}
		}
		if err := p.settle(u); err != nil {
			return c, err
		}
	}
	for _, name := range c.Removed {
		if err := p.remove(name); err != nil {
			return c, err
		}
	}
	return c, nil
}

func wanted(by, name string) string { return path.Join(unitDir, by+".wants", name) }

// settle does what a unit needs beside its file: that it is wanted, and that no peers count that an earlier unit of
// its name was given while it ran.
func (p placer) settle(u Unit) error {
	if u.Kind == KindService && !bytes.Contains(u.Text, []byte(suffixes[KindEgress])) {
		if err := p.dropPeers(u.Name); err != nil {
			return err
		}
	}
	if u.WantedBy == "" {
		return nil
	}
	link, target := wanted(u.WantedBy, u.Name), path.Join("..", u.Name)
	if have, err := p.root.Readlink(link); err == nil && have == target {
		return nil
	}
	if err := p.root.MkdirAll(path.Dir(link), 0o755); err != nil {
		return err
	}
	if err := p.absent(link); err != nil {
		return err
	}
	return p.root.Symlink(target, link)
}

// dropPeers removes what AllowAddresses left, where systemd keeps what was set while a unit ran.
func (p placer) dropPeers(unit string) error {
	return p.absent(path.Join(controlDir, unit+".d", "50-IPAddressAllow.conf"))
}

func (p placer) remove(name string) error {
	if strings.HasSuffix(name, ".service") {
		if err := p.dropPeers(name); err != nil {
			return err
		}
	}
	for _, file := range []string{wanted(multiUser, name), path.Join(unitDir, name), path.Join(healthDir, name+".json"), path.Join(egressDir, name+".json")} {
		if err := p.absent(file); err != nil {
			return err
		}
	}
	return nil
}

func (p placer) absent(name string) error {
	if err := p.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
