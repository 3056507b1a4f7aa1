package systemd

import (
	"context"
	"fmt"
	"slices"
	"strings"

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

// Loaded returns the units that systemd has loaded and whose file exists, in the order of their names.
func (m Manager) Loaded(ctx context.Context) ([]LoadedUnit, error) {
	var units []LoadedUnit
	err := m.connected(ctx, callTimeout, func(ctx context.Context, conn *dbus.Conn) error {
		var list []listed
		if err := conn.Object(busName, managerPath).CallWithContext(ctx, managerIface+".ListUnits", 0).Store(&list); err != nil {
			return fmt.Errorf("ask systemd for its units: %w", err)
		}
		for _, l := range list[:min(len(list), unitsMax)] {
			if l.Load == "not-found" {
				continue
			}
			u := LoadedUnit{Name: l.Name, Load: l.Load, Active: l.Active, Sub: l.Sub}
			kind := l.Name[strings.LastIndexByte(l.Name, '.')+1:]
			if u.Runs() && slices.Contains(detailed, "."+kind) {
				if err := u.ask(ctx, conn.Object(busName, l.Path), kind == "service"); err != nil {
					return fmt.Errorf("ask systemd for %s: %w", l.Name, err)
				}
			}
			units = append(units, u)
		}
		return nil
	})
	slices.SortFunc(units, func(a, b LoadedUnit) int { return strings.Compare(a.Name, b.Name) })
	return units, err
}

// ask fills in the details. All questions are on their way before the first answer is read. A unit that went away
// meanwhile has none.
func (u *LoadedUnit) ask(ctx context.Context, unit dbus.BusObject, service bool) error {
	const unitIface, serviceIface = busName + ".Unit", busName + ".Service"
	type question struct {
		call *dbus.Call
		into any
	}
	var questions []question
	get := func(iface, name string, into any) {
		call := unit.GoWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, make(chan *dbus.Call, 1), iface, name)
		questions = append(questions, question{call, into})
	}
	// a(sasbttttuii) and a(sb), of which the first fields count.
	var exec [][]any
	var files [][]any
	get(unitIface, "FragmentPath", &u.Fragment)
	get(unitIface, "DropInPaths", &u.DropIns)
	get(unitIface, "CanReload", &u.CanReload)
	get(unitIface, "RefuseManualStop", &u.RefuseStop)
	if service {
		get(serviceIface, "Type", &u.Type)
		get(serviceIface, "ExecStart", &exec)
		get(serviceIface, "EnvironmentFiles", &files)
	}
	for _, q := range questions {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-q.call.Done:
		}
		var value dbus.Variant
		if q.call.Err != nil {
			if _, refused := q.call.Err.(dbus.Error); refused { //nolint:errorlint // the library returns it as it is
				continue
			}
			return q.call.Err
		}
		if err := q.call.Store(&value); err != nil {
			return err
		}
		if err := value.Store(q.into); err != nil {
			return err
		}
	}
	u.Programs, u.EnvironmentFiles = firstOf(exec), firstOf(files)
	for _, fields := range exec {
		if len(fields) > 1 {
			argv, _ := fields[1].([]string)
			u.Arguments = append(u.Arguments, argv...)
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
