package services

import (
	"fmt"
	"slices"
	"strings"
)

// Kind says what a unit is for.
type Kind string

// The kinds. A service and the lines of an init are what a person means; the others help a service.
const (
	KindService     Kind = "service"
	KindInit        Kind = "init"
	KindHealth      Kind = "health"
	KindHealthTimer Kind = "health-timer"
	KindReady       Kind = "ready"
	KindEgress      Kind = "egress"
	KindEgressTimer Kind = "egress-timer"
)

// suffixes are what the names of units end in.
var suffixes = map[Kind]string{
	KindService: ".service", KindInit: ".init.service", KindHealth: ".health.service", KindHealthTimer: ".health.timer",
	KindReady: ".ready.service", KindEgress: ".egress.service", KindEgressTimer: ".egress.timer",
}

// Unit is a unit file.
type Unit struct {
	Name string
	// Module and Service are what it is made of; Service is "" for KindInit.
	Module, Service string
	Kind            Kind
	Text            []byte
	// WantedBy is the unit that starts it, "" for none of its own.
	WantedBy string
}

// Main reports whether the unit is a service itself, or the lines of an init.
func (u Unit) Main() bool { return u.Kind == KindService || u.Kind == KindInit }

// unitName returns the name of a unit. The names of the module and the service must have been checked.
func unitName(module, service string, kind Kind) string {
	if kind == KindInit {
		return "powernode-" + module + suffixes[kind]
	}
	return "powernode-" + module + "_" + service + suffixes[kind]
}

// marker is how a unit file of ours begins; the module's name and a line break follow.
const marker = "# Made by powernode-agent; whatever is changed here is lost. Module: "

// writer writes a unit file. Values are written by its methods alone, all of which see to it that they stay in their line.
type writer struct {
	b   strings.Builder
	bad error
}

func newWriter(module string) *writer {
	w := &writer{}
	w.b.WriteString(marker + module + "\n")
	return w
}

// in begins a section.
func (w *writer) in(section string) { fmt.Fprintf(&w.b, "\n[%s]\n", section) }

// unit begins a unit. One that failed is forgotten once nothing speaks of it any more: the check of a service that was
// stopped, or a unit that is gone. Until then it is seen where failed units are.
func (w *writer) unit(description string) {
	w.in("Unit")
	w.set("Description", description)
	w.set("CollectMode", "inactive-or-failed")
}

// set writes a directive. The value has been escaped as the directive asks; what would end its line or join it with the
// next is refused all the same.
func (w *writer) set(key, value string) {
	if err := checkText(value); err != nil && w.bad == nil {
		w.bad = fmt.Errorf("%s=: %w", key, err)
	}
	if strings.HasSuffix(value, `\`) && w.bad == nil {
		w.bad = refused("", "%s= would end in a backslash", key)
	}
	fmt.Fprintf(&w.b, "%s=%s\n", key, value)
}

// list writes a directive for each of the values, in order, each there once; nothing for none.
func (w *writer) list(key string, values []string) {
	slices.Sort(values)
	for _, v := range slices.Compact(values) {
		w.set(key, v)
	}
}

// yes writes directives that are switched on.
func (w *writer) yes(keys ...string) {
	for _, k := range keys {
		w.set(k, "yes")
	}
}

// path writes a directive that takes a path, which systemd reads unquoted.
func (w *writer) path(key, value string) {
	if !pathForm.MatchString(value) && w.bad == nil {
		w.bad = refused(`use letters, digits and any of _ / . , : = + @ ~ -`, "%s=: the path %.100q", key, value)
	}
	w.set(key, value)
}

func (w *writer) text() ([]byte, error) { return []byte(w.b.String()), w.bad }
