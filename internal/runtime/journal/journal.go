// Package journal writes a program's log into systemd's journal with its fields, so that `journalctl MESSAGE_ID=…` and
// `journalctl POWERNODE_TASK=…` find what a text search doesn't.
//
// It promises that a message which the journal doesn't take goes to the handler that stands behind it; that no value
// can pass for a field of its own; and that a message is bounded. It trusts who listens at the journal's socket: its directory belongs
// to root.
package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Socket is where the journal listens (systemd-journald.service(8)).
const Socket = "/run/systemd/journal/socket"

// Bounds of a message, in bytes: a datagram of more would have to go by a file.
const (
	maxValue   = 4 << 10
	maxMessage = 48 << 10
	maxFields  = 32
)

// patience is how long a journal that stands still holds the service up.
const patience = time.Second

// Connected reports whether a file, standard error as a rule, is the stream that systemd has given this process for its log: stream is
// $JOURNAL_STREAM, "DEVICE:INODE" (systemd.exec(5)).
func Connected(f *os.File, stream string) bool {
	device, inode, ok := strings.Cut(stream, ":")
	info, err := f.Stat()
	if !ok || err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && strconv.FormatUint(st.Dev, 10) == device && strconv.FormatUint(st.Ino, 10) == inode
}

// Handler is a slog.Handler. It is made by New.
type Handler struct {
	conn       *net.UnixConn
	identifier string
	behind     slog.Handler
	// fields are those of WithAttrs, prefix of WithGroup.
	fields []field
	prefix string
	// patience is the constant of that name, or longer in a test.
	patience time.Duration
}

type field struct{ name, value string }

// New returns a handler that writes to the socket under an identifier; what can't be written goes to behind, which also says which levels
// count.
func New(socket, identifier string, behind slog.Handler) (*Handler, error) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("reach the journal: %w", err)
	}
	return &Handler{conn: conn, identifier: identifier, behind: behind, patience: patience}, nil
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, l slog.Level) bool { return h.behind.Enabled(ctx, l) }

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.behind = h.behind.WithAttrs(attrs)
	c.fields = append([]field(nil), h.fields...)
	for _, a := range attrs {
		c.fields = add(c.fields, h.prefix, a)
	}
	return &c
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	c := *h
	c.behind = h.behind.WithGroup(name)
	if name != "" {
		c.prefix = h.prefix + name + "_"
	}
	return &c
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	fields := append([]field(nil), h.fields...)
	r.Attrs(func(a slog.Attr) bool {
		fields = add(fields, h.prefix, a)
		return true
	})
	_ = h.conn.SetWriteDeadline(time.Now().Add(h.patience))
	if _, err := h.conn.Write(encode(h.identifier, r.Level, r.Message, fields)); err != nil {
		return h.behind.Handle(ctx, r)
	}
	return nil
}

// add appends an attribute, and those of a group under its name.
func add(fields []field, prefix string, a slog.Attr) []field {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "_"
		}
		for _, m := range v.Group() {
			fields = add(fields, prefix, m)
		}
		return fields
	}
	if a.Key == "" || v.Kind() == slog.KindAny && v.Any() == nil {
		return fields
	}
	return append(fields, field{prefix + a.Key, clip(v.String(), maxValue)})
}

// encode returns a message in the journal's native protocol (systemd's JOURNAL_NATIVE_PROTOCOL).
func encode(identifier string, level slog.Level, message string, fields []field) []byte {
	var b bytes.Buffer
	text := clip(message, maxValue)
	var own []field
	for _, f := range fields[:min(len(fields), maxFields)] {
		if f.value == "" {
			continue
		}
		text += " " + f.name + "=" + quote(f.value)
		if name := fieldName(f.name); name != "" {
			own = append(own, field{name, f.value})
		}
	}
	put(&b, field{"MESSAGE", clip(text, maxMessage/3)})
	put(&b, field{"PRIORITY", priority(level)})
	put(&b, field{"SYSLOG_IDENTIFIER", identifier})
	if id := MessageID(message); id != "" {
		put(&b, field{"MESSAGE_ID", id})
	}
	for _, f := range own {
		if b.Len()+len(f.value)+128 > maxMessage {
			break
		}
		put(&b, f)
	}
	return b.Bytes()
}

// put writes a field: "NAME=value\n", or for a value of several lines "NAME\n", its length in 64 bits, little-endian, and itself.
func put(b *bytes.Buffer, f field) {
	b.WriteString(f.name)
	if !strings.ContainsRune(f.value, '\n') {
		b.WriteString("=" + f.value + "\n")
		return
	}
	b.WriteByte('\n')
	_ = binary.Write(b, binary.LittleEndian, uint64(len(f.value))) // a buffer takes all
	b.WriteString(f.value + "\n")
}

// prefix of the fields that are ours: those of the journal itself and of others can't be written by what is logged.
const prefix = "POWERNODE_"

// fieldName returns the journal's name of an attribute: capital letters, digits and underscores, at most 64; "" for none.
func fieldName(key string) string {
	name := prefix + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_':
			return r
		case r == '-', r == '.', r == ' ':
			return '_'
		}
		return -1
	}, key)
	if len(name) == len(prefix) || len(name) > 64 {
		return ""
	}
	return name
}

// quote returns a value as people read it in a line.
func quote(s string) string {
	if strings.ContainsAny(s, " \t\n\"=") || strings.IndexFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) >= 0 {
		return strconv.Quote(s)
	}
	return s
}

// clip returns valid UTF-8 of at most so many bytes.
func clip(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "?")
}

// priority returns the priority of syslog(3).
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "3"
	case l >= slog.LevelWarn:
		return "4"
	case l >= slog.LevelInfo:
		return "6"
	}
	return "7"
}
