// Package systemdtest is a service manager for tests: it answers at a private socket the few questions that
// package systemd asks, over D-Bus as systemd itself does.
package systemdtest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
)

// Fake is the service manager. Its fields may be changed by Set while it runs.
type Fake struct {
	State, Version string
	// Units maps a unit's name to its state: "failed" or "auto-restart".
	Units map[string]string
	// Refuse is the error to every StartUnit, "" for none.
	Refuse string
	// Silent makes it take questions and never answer.
	Silent bool
	// Results maps a unit's name to how its jobs end, where that isn't "done"; "" never ends.
	Results map[string]string
	// Properties maps a unit's name to what it says of itself; a unit that isn't here isn't found.
	Properties map[string]map[string]any

	mu      sync.Mutex
	started []string
	asked   []string
	jobs    uint32
	signals []*dbus.Message
}

// Set changes the fake.
func (f *Fake) Set(change func(*Fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// Started returns what was started, as "unit mode".
func (f *Fake) Started() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.started...)
}

// Asked returns what else was asked for, as "method unit", in order.
func (f *Fake) Asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.asked...)
}

// Start makes it listen below run, until the test ends.
func (f *Fake) Start(t testing.TB, run string) {
	t.Helper()
	dir := filepath.Join(run, "systemd")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "private"))
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				if err := f.serve(c); !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
					t.Logf("fake systemd: %v", err)
				}
			})
		}
	})
}

// serve does the handshake of the D-Bus specification's SASL profile, and then answers, until it fails: at the
// latest with io.EOF, when the other side has closed.
func (f *Fake) serve(c net.Conn) error {
	in := bufio.NewReader(c)
	if _, err := in.ReadByte(); err != nil { // the byte that credentials may come with
		return err
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		answer := "ERROR\r\n"
		switch word, _, _ := strings.Cut(strings.TrimSpace(line), " "); {
		case word == "BEGIN":
			return f.answer(in, c)
		case line == "AUTH EXTERNAL\r\n":
			answer = "DATA\r\n"
		case word == "DATA":
			answer = "OK 0123456789abcdef0123456789abcdef\r\n"
		case word == "AUTH":
			answer = "REJECTED EXTERNAL\r\n"
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return err
		}
	}
}

func (f *Fake) answer(in io.Reader, out io.Writer) error {
	for serial := uint32(1); ; serial++ {
		m, err := dbus.DecodeMessage(in)
		if err != nil {
			return err
		}
		reply, ok := f.reply(m)
		if !ok {
			continue
		}
		reply.Headers[dbus.FieldReplySerial] = dbus.MakeVariant(m.Serial())
		if err := send(out, reply, serial); err != nil {
			return err
		}
		for _, s := range f.told() {
			serial++
			if err := send(out, s, serial); err != nil {
				return err
			}
		}
	}
}

// told takes the signals that are to be sent.
func (f *Fake) told() []*dbus.Message {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.signals
	f.signals = nil
	return s
}

func send(out io.Writer, m *dbus.Message, serial uint32) error {
	if len(m.Body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(m.Body...))
	}
	var raw bytes.Buffer
	if err := m.EncodeTo(&raw, binary.LittleEndian); err != nil {
		return err
	}
	// The library keeps the serial to itself; it stands in bytes 8 to 11 of a message.
	binary.LittleEndian.PutUint32(raw.Bytes()[8:], serial)
	_, err := out.Write(raw.Bytes())
	return err
}

func (f *Fake) reply(m *dbus.Message) (*dbus.Message, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{}}
	member, _ := m.Headers[dbus.FieldMember].Value().(string)
	switch {
	case f.Silent:
		return nil, false
	case member == "Get" && m.Body[1] == "SystemState":
		r.Body = []any{dbus.MakeVariant(f.State)}
	case member == "Get" && m.Body[1] == "Version":
		r.Body = []any{dbus.MakeVariant(f.Version)}
	case member == "Get" && m.Body[0] != "org.freedesktop.systemd1.Manager":
		value, ok := f.properties(m)[m.Body[1].(string)]
		if !ok {
			r.Type = dbus.TypeError
			r.Headers[dbus.FieldErrorName] = dbus.MakeVariant("org.freedesktop.DBus.Error.UnknownProperty")
			break
		}
		r.Body = []any{value}
	case member == "ListUnitsFiltered":
		r.Body = []any{f.units()}
	case member == "ListUnits":
		r.Body = []any{f.loaded()}
	case member == "ResetFailedUnit":
	case strings.HasSuffix(member, "Unit") && member != "LoadUnit" && f.Refuse == "":
		if member == "StartUnit" {
			f.started = append(f.started, m.Body[0].(string)+" "+m.Body[1].(string))
		}
		r.Body = []any{f.job(member, m.Body[0].(string))}
	case member == "LoadUnit":
		r.Body = []any{unitPath(m.Body[0].(string))}
	case member == "GetAll":
		r.Body = []any{f.properties(m)}
	case member == "Subscribe":
	case (member == "Reload" || member == "SetUnitProperties") && f.Refuse == "":
		f.asked = append(f.asked, strings.TrimSpace(fmt.Sprintln(append([]any{member}, m.Body...)...)))
	default:
		r.Type = dbus.TypeError
		r.Headers[dbus.FieldErrorName] = dbus.MakeVariant("org.freedesktop.DBus.Error.Failed")
		r.Body = []any{f.Refuse}
	}
	return r, true
}

// job queues the end of a job, and returns the job.
func (f *Fake) job(method, unit string) dbus.ObjectPath {
	f.asked = append(f.asked, method+" "+unit)
	f.jobs++
	job := dbus.ObjectPath(fmt.Sprintf("/org/freedesktop/systemd1/job/%d", f.jobs))
	result, ok := f.Results[unit]
	if !ok {
		result = "done"
	}
	if result != "" {
		f.signals = append(f.signals, &dbus.Message{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldPath:      dbus.MakeVariant(dbus.ObjectPath("/org/freedesktop/systemd1")),
			dbus.FieldInterface: dbus.MakeVariant("org.freedesktop.systemd1.Manager"),
			dbus.FieldMember:    dbus.MakeVariant("JobRemoved"),
		}, Body: []any{f.jobs, job, unit, result}})
	}
	return job
}

// properties are those of the unit whose object is asked.
func (f *Fake) properties(m *dbus.Message) map[string]dbus.Variant {
	path, _ := m.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	name, _ := hex.DecodeString(strings.TrimPrefix(string(path), "/unit/"))
	out := map[string]dbus.Variant{"LoadState": dbus.MakeVariant("not-found"), "ActiveState": dbus.MakeVariant("inactive")}
	for key, value := range f.Properties[string(name)] {
		out["LoadState"] = dbus.MakeVariant("loaded")
		out[key] = dbus.MakeVariant(value)
	}
	return out
}

// unit is an element of what ListUnitsFiltered returns: a(ssssssouso).
type unit struct {
	Name, Description, Load, Active, Sub, Following string
	Path                                            dbus.ObjectPath
	JobID                                           uint32
	JobType                                         string
	JobPath                                         dbus.ObjectPath
}

// Exec is an element of a service's ExecStart: a(sasbttttuii).
type Exec struct {
	Path                                         string
	Argv                                         []string
	Ignore                                       bool
	Begun, BegunMonotonic, Ended, EndedMonotonic uint64
	PID                                          uint32
	Code, Status                                 int32
}

// File is an element of a service's EnvironmentFiles: a(sb).
type File struct {
	Path   string
	Ignore bool
}

// loaded are the units that have Properties.
func (f *Fake) loaded() []unit {
	list := []unit{}
	for name, p := range f.Properties {
		u := unit{Name: name, Load: "loaded", Path: unitPath(name), JobPath: "/"}
		u.Active, _ = p["ActiveState"].(string)
		u.Sub, _ = p["SubState"].(string)
		list = append(list, u)
	}
	return list
}

func unitPath(name string) dbus.ObjectPath {
	return dbus.ObjectPath("/unit/" + hex.EncodeToString([]byte(name)))
}

func (f *Fake) units() []unit {
	list := []unit{}
	for name, state := range f.Units {
		u := unit{Name: name, Load: "loaded", Active: state, Sub: state, Path: unitPath(name), JobPath: "/"}
		if state == "auto-restart" {
			u.Active = "activating"
		}
		list = append(list, u)
	}
	return list
}
