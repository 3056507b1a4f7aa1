// Package systemdtest is a service manager for tests: it answers at a private socket the few questions that
// package systemd asks, over D-Bus as systemd itself does.
package systemdtest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
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

	mu      sync.Mutex
	started []string
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
		if len(reply.Body) > 0 {
			reply.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(reply.Body...))
		}
		var raw bytes.Buffer
		if err := reply.EncodeTo(&raw, binary.LittleEndian); err != nil {
			return err
		}
		// The library keeps the serial to itself; it stands in bytes 8 to 11 of a message.
		binary.LittleEndian.PutUint32(raw.Bytes()[8:], serial)
		if _, err := out.Write(raw.Bytes()); err != nil {
			return err
		}
	}
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
	case member == "ListUnitsFiltered":
		r.Body = []any{f.units()}
	case member == "StartUnit" && f.Refuse == "":
		f.started = append(f.started, m.Body[0].(string)+" "+m.Body[1].(string))
		r.Body = []any{dbus.ObjectPath("/org/freedesktop/systemd1/job/1")}
	default:
		r.Type = dbus.TypeError
		r.Headers[dbus.FieldErrorName] = dbus.MakeVariant("org.freedesktop.DBus.Error.Failed")
		r.Body = []any{f.Refuse}
	}
	return r, true
}

// unit is an element of what ListUnitsFiltered returns: a(ssssssouso).
type unit struct {
	Name, Description, Load, Active, Sub, Following string
	Path                                            dbus.ObjectPath
	JobID                                           uint32
	JobType                                         string
	JobPath                                         dbus.ObjectPath
}

func (f *Fake) units() []unit {
	list := []unit{}
	for name, state := range f.Units {
		u := unit{Name: name, Load: "loaded", Active: state, Sub: state, Path: "/org/freedesktop/systemd1/unit/x", JobPath: "/"}
		if state == "auto-restart" {
			u.Active = "activating"
		}
		list = append(list, u)
	}
	return list
}
