package systemd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// LoadedUnit is a unit that systemd knows now, with what decides whether and how it may be restarted. The
// fields from Fragment on are asked for only where the unit is active, and a service, socket, timer or path.
type LoadedUnit struct {
	Name string
	// Load, Active and Sub are as in UnitState.
	Load, Active, Sub string
	// Fragment is the unit's file, and DropIns those that add to it.
	Fragment string
	DropIns  []string
	// CanReload says that it can read its configuration again while it runs, RefuseStop that nobody but systemd itself may
	// stop it.
	CanReload, RefuseStop bool
	// Type is a service's: "simple", "oneshot", …
	Type string
	// Programs are the files that a service's ExecStart= runs, Arguments what they are given (their own names
	// included), EnvironmentFiles the files that their environment is read from.
	Programs, Arguments, EnvironmentFiles []string
}

// Runs reports whether it is active, or on its way there or from there.
func (u LoadedUnit) Runs() bool { return u.Active != "inactive" && u.Active != "failed" }

// detailed are the kinds of units whose details are asked for.
var detailed = []string{".service", ".socket", ".timer", ".path"}

// listed is an element of what ListUnits returns.
type listed struct {
	Name, Description, Load, Active, Sub, Following string
	Path                                            dbus.ObjectPath
	JobID                                           uint32
	JobType                                         string
	JobPath                                         dbus.ObjectPath
}

// listTimeout bounds the questions about all units: there are hundreds.
const listTimeout = time.Minute

// Loaded returns the units that systemd has loaded and whose file exists, in the order of their names.
func (m Manager) Loaded(ctx context.Context) ([]LoadedUnit, error) {
	var units []LoadedUnit
	err := m.connected(ctx, listTimeout, func(ctx context.Context, conn *dbus.Conn) error {
		var list []listed
		if err := conn.Object(busName, managerPath).CallWithContext(ctx, managerIface+".ListUnits", 0).Store(&list); err != nil {
			return fmt.Errorf("ask systemd for its units: %w", err)
		}
		list = slices.DeleteFunc(list[:min(len(list), unitsMax)], func(l listed) bool { return l.Load == "not-found" })
		units = make([]LoadedUnit, len(list))
		for i, l := range list {
			u := &units[i]
			*u = LoadedUnit{Name: l.Name, Load: l.Load, Active: l.Active, Sub: l.Sub}
			kind := l.Name[strings.LastIndexByte(l.Name, '.')+1:]
			if !u.Runs() || !slices.Contains(detailed, "."+kind) {
				continue
			}
			// All questions about a unit are on their way before the first answer is read.
			if err := ask(ctx, u, conn.Object(busName, l.Path), kind == "service").read(ctx); err != nil {
				return fmt.Errorf("ask systemd for %s: %w", u.Name, err)
			}
		}
		return nil
	})
	slices.SortFunc(units, func(a, b LoadedUnit) int { return strings.Compare(a.Name, b.Name) })
	return units, err
}

// details are the questions about one unit.
type details struct {
	unit      *LoadedUnit
	questions []question
	// a(sasbttttuii) and a(sb), of which the first fields count.
	exec, files [][]any
}

type question struct {
	call *dbus.Call
	into any
}

// ask asks, and doesn't wait for the answers.
func ask(ctx context.Context, u *LoadedUnit, object dbus.BusObject, service bool) *details {
	const unitIface, serviceIface = busName + ".Unit", busName + ".Service"
	d := &details{unit: u}
	get := func(iface, name string, into any) {
		call := object.GoWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, make(chan *dbus.Call, 1), iface, name)
		d.questions = append(d.questions, question{call, into})
	}
	get(unitIface, "FragmentPath", &u.Fragment)
	get(unitIface, "DropInPaths", &u.DropIns)
	get(unitIface, "CanReload", &u.CanReload)
	get(unitIface, "RefuseManualStop", &u.RefuseStop)
	if service {
		get(serviceIface, "Type", &u.Type)
		get(serviceIface, "ExecStart", &d.exec)
		get(serviceIface, "EnvironmentFiles", &d.files)
	}
	return d
}

// read fills in the answers. A unit that went away meanwhile has none.
func (d *details) read(ctx context.Context) error {
	for _, q := range d.questions {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-q.call.Done:
		}
		if _, refused := q.call.Err.(dbus.Error); refused { //nolint:errorlint // the library returns it as it is
			continue
		}
		var value dbus.Variant
		if err := q.call.Store(&value); err != nil {
			return err
		}
		if err := value.Store(q.into); err != nil {
			return err
		}
	}
	d.unit.Programs, d.unit.EnvironmentFiles = firstOf(d.exec), firstOf(d.files)
	for _, fields := range d.exec {
		if len(fields) > 1 {
			argv, _ := fields[1].([]string)
			d.unit.Arguments = append(d.unit.Arguments, argv...)
		}
	}
	return nil
}

// firstOf returns the first field of each, where that is text.
func firstOf(structs [][]any) []string {
	var first []string
	for _, fields := range structs {
		if len(fields) > 0 {
			if text, ok := fields[0].(string); ok {
				first = append(first, text)
			}
		}
	}
	return first
}
