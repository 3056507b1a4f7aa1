package journal

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/oracle"
)

// parse reads a message of the native protocol, as the journal does.
func parse(t testing.TB, b []byte) map[string]string {
	t.Helper()
	fields := map[string]string{}
	for len(b) > 0 {
		line, rest, ok := strings.Cut(string(b), "\n")
		if !ok {
			t.Fatalf("a field without an end: %.80q", b)
		}
		name, value, one := strings.Cut(line, "=")
		b = []byte(rest)
		if !one {
			if len(b) < 8 {
				t.Fatalf("%s: no length", name)
			}
			n := binary.LittleEndian.Uint64(b)
			if uint64(len(b)) < 9+n || b[8+n] != '\n' {
				t.Fatalf("%s: %d bytes", name, n)
			}
			value, b = string(b[8:8+n]), b[9+n:]
		}
		if _, twice := fields[name]; twice {
			t.Errorf("%s twice", name)
		}
		fields[name] = value
	}
	return fields
}

func TestHandler(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var behind strings.Builder
	h, err := New(path, "powernode-agent", slog.NewTextHandler(&behind, nil))
	if err != nil {
		t.Fatal(err)
	}
	h.patience = 10 * time.Minute // what is late goes behind, and would be waited for here
	log := slog.New(h)
	receive := func() map[string]string {
		t.Helper()
		b := make([]byte, 1<<18)
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return parse(t, b[:n])
	}
	log.With("task", "t1").WithGroup("g").Warn("a task failed", "code", "FAILED", "error", "one\nMESSAGE=two", "bad key!", 7, "nothing", nil)
	f := receive()
	for name, want := range map[string]string{
		"PRIORITY": "4", "SYSLOG_IDENTIFIER": "powernode-agent", "MESSAGE_ID": MessageID("a task failed"),
		"POWERNODE_TASK": "t1", "POWERNODE_G_CODE": "FAILED", "POWERNODE_G_ERROR": "one\nMESSAGE=two", "POWERNODE_G_BAD_KEY": "7",
		"MESSAGE": `a task failed task=t1 g_code=FAILED g_error="one\nMESSAGE=two" g_bad key!=7`,
	} {
		if f[name] != want {
			t.Errorf("%s: %q, want %q", name, f[name], want)
		}
	}
	if log.Debug("quiet"); behind.Len() > 0 {
		t.Error(behind.String())
	}
	args := []any{}
	for i := range 100 {
		args = append(args, fmt.Sprint("k", i), strings.Repeat("x", 1<<16))
	}
	log.Error("much", args...)
	if f := receive(); len(f["MESSAGE"]) > maxMessage || f["PRIORITY"] != "3" || f["MESSAGE_ID"] != "" {
		t.Errorf("%d bytes, %q", len(f["MESSAGE"]), f["PRIORITY"])
	}
	// Without a journal it is said all the same.
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	log.Info("after all")
	if !strings.Contains(behind.String(), "after all") {
		t.Error(behind.String())
	}
}

func TestConnected(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	for stream, want := range map[string]bool{
		fmt.Sprintf("%d:%d", st.Dev, st.Ino): true, fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): false, "": false, "x": false,
	} {
		if Connected(f, stream) != want {
			t.Errorf("%q: %t", stream, !want)
		}
	}
}

// TestMessageIDs: each is one, and of one message.
func TestMessageIDs(t *testing.T) {
	seen := map[string]string{}
	for message, id := range MessageIDs() {
		if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(id) || seen[id] != "" {
			t.Errorf("%q: %q, as %q", message, id, seen[id])
		}
		seen[id] = message
	}
}

// TestMessageIDsAreSaid: somebody says each of these messages, in these words, and the table has it.
func TestMessageIDsAreSaid(t *testing.T) {
	root := oracle.Root(t)
	var source strings.Builder
	for _, dir := range []string{"internal/runtime", "internal/agentcli"} {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(text)
		}
	}
	docs, err := os.ReadFile(filepath.Join(root, "docs", "service.md"))
	if err != nil {
		t.Fatal(err)
	}
	for message, id := range MessageIDs() {
		if !strings.Contains(source.String(), strconv.Quote(message)) {
			t.Errorf("nobody says %q", message)
		}
		if row := fmt.Sprintf("| `%s` | %s |", id, message); !strings.Contains(string(docs), row) {
			t.Errorf("docs/service.md lacks %s", row)
		}
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("a task failed", "task", "t1")
	f.Add("x\ny", "MESSAGE", "\nPRIORITY=0\n")
	f.Fuzz(func(t *testing.T, message, key, value string) {
		text := clip(value, maxValue)
		fields := parse(t, encode("me", slog.LevelInfo, message, []field{{key, text}}))
		for name := range fields {
			switch {
			case name == "MESSAGE", name == "PRIORITY", name == "SYSLOG_IDENTIFIER", name == "MESSAGE_ID":
			case name != fieldName(key):
				t.Errorf("a field %q", name)
			}
		}
		if fields["PRIORITY"] != "6" {
			t.Errorf("priority %q", fields["PRIORITY"])
		}
	})
}
