package agentcli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/reconcile"
)

// driftDoc is in what the node differs from the platform's list, as it was at the last update of this boot.
type driftDoc struct {
	// At is when the platform was asked.
	At      time.Time     `json:"at"`
	Modules []driftModule `json:"modules,omitempty"`
	// Refused says why nothing of that list was done.
	Refused string `json:"refused,omitempty"`
}

// driftModule is a module that isn't as it is assigned.
type driftModule struct {
	Name string `json:"name"`
	// Assigned and Running are versions; "" where it isn't assigned, or doesn't run.
	Assigned string `json:"assigned_version,omitempty"`
	Running  string `json:"running_version,omitempty"`
	// Reason is why it couldn't be used, where that is why.
	Reason string `json:"reason,omitempty"`
}

func (m driftModule) String() string {
	text := m.Name + " "
	switch {
	case m.Assigned == "":
		text += m.Running + " runs, and isn't assigned"
	case m.Running == "":
		text += m.Assigned + " is assigned, and doesn't run"
	default:
		text += m.Assigned + " is assigned, and " + m.Running + " runs"
	}
	if m.Reason != "" {
		text += ": " + m.Reason
	}
	return text
}

// drift compares the modules that run with what the platform assigned. What couldn't be used of its list, and a list that was
// refused as a whole, are out of step; what an administrator went back to, or what waits for the next boot, isn't.
func (d *statusDoc) drift(runDir string) {
	last, ok, err := change.ReadLast(runDir)
	if err != nil {
		d.Remarks = append(d.Remarks, err.Error())
	}
	if !ok {
		return
	}
	modules := driftOf(last, d.Modules)
	if len(modules) > 0 || last.Refused != "" {
		d.Drift = &driftDoc{At: last.At, Modules: modules, Refused: last.Refused}
	}
	if last.Refused != "" {
		d.Reasons = append(d.Reasons, "what the platform assigns wasn't taken on: "+last.Refused)
	}
	for _, m := range modules {
		if m.Reason != "" {
			d.Reasons = append(d.Reasons, "module "+m.String())
		}
	}
}

// driftOf is the decision behind drift, in the order of names.
func driftOf(last change.Last, running []statusModule) []driftModule {
	byName := make(map[string]*driftModule)
	at := func(name string) *driftModule {
		if byName[name] == nil {
			byName[name] = &driftModule{Name: name}
		}
		return byName[name]
	}
	for _, m := range last.Assigned {
		at(m.Name).Assigned = m.Version
	}
	for _, m := range running {
		if m.Origin == reconcile.ByPlatform || byName[m.Name] != nil {
			at(m.Name).Running = m.Version
		}
	}
	for _, f := range last.Failed {
		if m := byName[f.Name]; m != nil && m.Running != f.Version {
			m.Reason = f.Reason
		}
	}
	var list []driftModule
	for _, m := range byName {
		// The same version may be refused, too, where what is signed as it became another one.
		if m.Assigned != m.Running || m.Reason != "" {
			list = append(list, *m)
		}
	}
	slices.SortFunc(list, func(a, b driftModule) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// driftRows are the lines of the table about that; what is out of step is among the reasons.
func (d statusDoc) driftRows() [][2]string {
	if d.Drift == nil {
		return nil
	}
	var rows [][2]string
	for _, m := range d.Drift.Modules {
		if m.Reason == "" {
			rows = append(rows, [2]string{"drift", fmt.Sprint(m)})
		}
	}
	return rows
}
