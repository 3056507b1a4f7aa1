package systemd

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"github.com/godbus/dbus/v5"
)

// UnitState is how one unit is.
type UnitState struct {
	Name string
	// Load is "loaded", "not-found", "masked", "bad-setting" or "error".
	Load string
	// Active is "active", "inactive", "failed", "activating", …, and Sub says more: "running", "auto-restart", "exited".
	Active, Sub string
	// Result is why a service, timer or mount failed: "success", "exit-code", "timeout", …; "" for other kinds of units.
	Result string
	// Invocation tells one run of the unit from another; "" where it never ran.
	Invocation string
	// Since is when it became active the last time; zero where it never did.
	Since time.Time
	// MainPID, ExitStatus and Restarts are those of a service.
	MainPID    uint32
	ExitStatus int32
	Restarts   uint32
}

// Unit returns how a unit is. One that doesn't exist is no error; its Load is "not-found".
func (m Manager) Unit(ctx context.Context, name string) (UnitState, error) {
	states, err := m.Units(ctx, []string{name})
	if err != nil {
		return UnitState{}, err
	}
	return states[0], nil
}

// Units is Unit for several of them.
func (m Manager) Units(ctx context.Context, names []string) ([]UnitState, error) {
	states := make([]UnitState, len(names))
	err := m.connected(ctx, callTimeout, func(ctx context.Context, conn *dbus.Conn) error {
		for i, name := range names {
			state, err := unitState(ctx, conn, name)
			if err != nil {
				return fmt.Errorf("ask systemd for %s: %w", name, err)
			}
			states[i] = state
		}
		return nil
	})
	return states, err
}

func unitState(ctx context.Context, conn *dbus.Conn, name string) (UnitState, error) {
	var path dbus.ObjectPath
	if err := conn.Object(busName, managerPath).CallWithContext(ctx, managerIface+".LoadUnit", 0, name).Store(&path); err != nil {
		return UnitState{}, err
	}
	// "" asks for the properties of every interface.
	var p map[string]dbus.Variant
	if err := conn.Object(busName, path).CallWithContext(ctx, "org.freedesktop.DBus.Properties.GetAll", 0, "").Store(&p); err != nil {
		return UnitState{}, err
	}
	s := UnitState{
		Name: name, Load: of[string](p, "LoadState"), Active: of[string](p, "ActiveState"), Sub: of[string](p, "SubState"),
		Result: of[string](p, "Result"), Invocation: hex.EncodeToString(of[[]byte](p, "InvocationID")),
		MainPID: of[uint32](p, "MainPID"), ExitStatus: of[int32](p, "ExecMainStatus"), Restarts: of[uint32](p, "NRestarts"),
	}
	if micros := of[uint64](p, "ActiveEnterTimestamp"); micros != 0 {
		s.Since = time.UnixMicro(int64(micros)) //nolint:gosec // a time in the kernel's range
	}
	return s, nil
}

// of returns a property, and the zero value where the unit has none of that name and type.
func of[T any](properties map[string]dbus.Variant, name string) T {
	value, _ := properties[name].Value().(T)
	return value
}

// addresses is an element of what IPAddressAllow takes: a(iayu).
type addresses struct {
	Family int32
	Bytes  []byte
	Bits   uint32
}

// property of a(sv), which SetUnitProperties takes.
type setting struct {
	Name  string
	Value dbus.Variant
}

// The kernel's numbers of address families (linux/socket.h).
const (
	familyIPv4 = 2
	familyIPv6 = 10
)

// AllowAddresses sets which peers a unit may talk to, in place of what its files and earlier calls say, until the machine
// restarts. A unit that runs is held to it at once. It has an effect only on a unit with IPAddressDeny=.
func (m Manager) AllowAddresses(ctx context.Context, unit string, allowed []netip.Prefix) error {
	list := make([]addresses, len(allowed))
	for i, p := range allowed {
		family := int32(familyIPv6)
		if p.Addr().Is4() {
			family = familyIPv4
		}
		list[i] = addresses{family, p.Masked().Addr().AsSlice(), uint32(p.Bits())} //nolint:gosec // 0 to 128
	}
	// An empty list takes back what was set before; what follows is added.
	settings := []setting{
		{"IPAddressAllow", dbus.MakeVariant([]addresses{})},
		{"IPAddressAllow", dbus.MakeVariant(list)},
	}
	return m.ask(ctx, func(ctx context.Context, manager dbus.BusObject) error {
		if err := manager.CallWithContext(ctx, managerIface+".SetUnitProperties", 0, unit, true, settings).Err; err != nil {
			return fmt.Errorf("set the peers of %s: %w", unit, err)
		}
		return nil
	})
}
