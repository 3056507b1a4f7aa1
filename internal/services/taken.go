package services

import (
	"errors"
	"io/fs"
	"path"
	"slices"

	"github.com/powernode/powernode-agent/internal/fault"
)

// free returns a Set without the modules that have a unit whose name is that of a file which somebody else made. They are among the
// Set's refused ones then, and returned: whose the unit is that systemd reads isn't left open, and no other module is kept back.
func (p placer) free(set Set, have map[string][]byte) (free Set, taken []Refusal, err error) {
	free.Refused = slices.Clone(set.Refused)
	for _, m := range set.Modules {
		name, err := p.taken(m.Units, have)
		switch {
		case err != nil:
			return Set{}, nil, err
		case name == "":
			free.Modules = append(free.Modules, m)
			continue
		}
		err = fault.New(fault.Refuse, fault.Service, "remove that file, and change or boot the node again",
			"make the services of module %s: /run/%s/%s is there, and isn't of the agent's making", m.Module, unitDir, name)
		taken = append(taken, Refusal{Module: m.Module, Reason: err.Error(), Hint: fault.HintOf(err), Err: err})
	}
	free.Refused = append(free.Refused, taken...)
	return free, taken, nil
}

// taken returns the first of these units whose place somebody else's file has; "" where none has.
func (p placer) taken(units []Unit, have map[string][]byte) (string, error) {
	for _, u := range units {
		if _, ours := have[u.Name]; ours {
			continue
		}
		switch _, err := p.root.Lstat(path.Join(unitDir, u.Name)); {
		case err == nil:
			return u.Name, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
	}
	return "", nil
}

// partly makes one error in area Partial of modules that are refused; nil of none.
func partly(refused []Refusal) error {
	if len(refused) == 0 {
		return nil
	}
	errs := make([]error, len(refused))
	for i, r := range refused {
		errs[i] = r.Err
	}
	return fault.New(fault.Refuse, fault.Partial, refused[0].Hint, "%w; the units of the other modules are placed", errors.Join(errs...))
}
