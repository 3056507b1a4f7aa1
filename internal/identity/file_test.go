package identity

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

func TestParseFile(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     map[string]string
		err      string
	}{
		{name: "empty", want: map[string]string{}},
		{name: "plain", in: "ID=a\nKEY=b\n", want: map[string]string{"ID": "a", "KEY": "b"}},
		{name: "no end of line", in: "ID=a", want: map[string]string{"ID": "a"}},
		{name: "comments and blanks", in: "# c\n\n  # d\nID=a # e\nKEY=a#b\n", want: map[string]string{"ID": "a", "KEY": "a#b"}},
		{name: "export", in: "export ID=a\nexport\tKEY=b\nexporter=c\n", want: map[string]string{"ID": "a", "KEY": "b", "exporter": "c"}},
		{name: "quotes", in: "A=\"b c\"\nB='d \"e'\nC=\"\" # none\nD=' f '\n", want: map[string]string{"A": "b c", "B": `d "e`, "C": "", "D": "f"}},
		{name: "equals", in: "KEY=a=b==\n", want: map[string]string{"KEY": "a=b=="}},
		{name: "last wins", in: "ID=a\nID=b\n", want: map[string]string{"ID": "b"}},
		{name: "DOS", in: "\xef\xbb\xbfID=a\r\nKEY=\"b\"\r\n", want: map[string]string{"ID": "a", "KEY": "b"}},
		{name: "spaces", in: "  ID = a \n", want: map[string]string{"ID": "a"}},
		{name: "several lines", in: "P=\"-----BEGIN X\nabc\n-----END X\n\"\nID=a\n", want: map[string]string{"P": "-----BEGIN X\nabc\n-----END X", "ID": "a"}},
		{name: "others' names", in: "DNS_1=9.9.9.9\nip=1.2.3.4::gw\n", want: map[string]string{"DNS_1": "9.9.9.9", "ip": "1.2.3.4::gw"}},
		{name: "no equals", in: "ID=a\nKEY b\n", err: "line 2 is neither"},
		{name: "bad name", in: "K-E-Y=b\n", err: "line 1 is neither"},
		{name: "no name", in: "=b\n", err: "line 1 is neither"},
		{name: "open quote", in: "ID=a\nKEY=\"b\nc\n", err: "that line 2 opens isn't closed"},
		{name: "after the quote", in: "\nKEY=\"b\nc\" d\n", err: "line 3 goes on"},
		{name: "line numbers after several lines", in: "A=\"\n\n\"\nx\n", err: "line 4 is neither"},
		{name: "binary", in: "ID=\x00", err: "isn't a text file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseFile([]byte(c.in))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, %v; want an error with %q", got, err, c.err)
				}
				return
			}
			if d := cmp.Diff(c.want, got); d != "" || err != nil {
				t.Errorf("%v %s", err, d)
			}
		})
	}
}

func TestFile(t *testing.T) {
	ca, other := pkitest.NewCA(t, "CA"), pkitest.NewCA(t, "Other")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), ca.PEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	base := "ID=" + uuid + "\nKEY=" + token + "\nSERVER=https://p.example\n"
	for _, c := range []struct {
		name, text string
		ca         []byte
		err        string
	}{
		{name: "relative CA file", text: base + "CA_PEM_FILE=ca.pem\n", ca: ca.PEM()},
		{name: "absolute CA file", text: base + "CA_PEM_FILE=" + dir + "/ca.pem\n", ca: ca.PEM()},
		{name: "inline wins", text: base + "CA_PEM_FILE=ca.pem\nCA_PEM='" + string(other.PEM()) + "'\n", ca: other.PEM()},
		{name: "inline base64", text: base + "CA_PEM=" + base64.StdEncoding.EncodeToString(other.PEM()), ca: other.PEM()},
		{name: "no CA", text: base},
		{name: "missing CA file", text: base + "CA_PEM_FILE=no.pem\n", err: "CA_PEM_FILE: open " + dir + "/no.pem: no such file"},
		{name: "a key for a CA", text: base + "CA_PEM='-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n'\n", err: "type \"PRIVATE KEY\""},
		{name: "http", text: base + "SERVER=http://p.example\n", err: "SERVER: platform URL"},
		{name: "bad token", text: base + "KEY='two words " + token + "'\n", err: "KEY: character 4 can't"},
		{name: "bad ID", text: base + "ID=node-7\n", err: `ID: "node-7" isn't a UUID`},
		{name: "bad line", text: base + "KEY " + token + "\n", err: "line 4 is neither"},
		{name: "huge", text: base + strings.Repeat("#\n", maxFile), err: "longer than 65536 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(dir, "identity.cfg")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := File{path}.Find(t.Context())
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || errors.Is(err, ErrNotFound) || strings.Contains(err.Error(), token) {
					t.Errorf("got %v, want an error with %q and no token", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.InstanceID != uuid || got.Token.Reveal() != token || got.PlatformURL != "https://p.example" || string(got.CAPEM) != string(c.ca) || got.Where != path || len(got.Warnings) != 0 {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestFileOddities(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open.cfg")
	if err := errors.Join(os.WriteFile(open, []byte("KEY="+token+"\n"), 0o644), os.Chmod(open, 0o644)); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	placeholder := write(t, "identity.cfg", "ID=\nKEY=\n# nothing yet\nDNS=9.9.9.9\n")
	for _, c := range []struct {
		path, err string
		absent    bool
	}{
		{filepath.Join(dir, "none"), "there is no such file", true},
		{filepath.Join(open, "below"), "there is no such file", true},
		{placeholder, "names none of ID, KEY", true},
		{fifo, "isn't a regular file", false},
		{dir, "isn't a regular file", false},
	} {
		_, err := File{c.path}.Find(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.err) || errors.Is(err, ErrNotFound) != c.absent {
			t.Errorf("%s: %v", c.path, err)
		}
	}
	found, err := File{open}.Find(t.Context())
	if err != nil || len(found.Warnings) != 1 || !strings.Contains(found.Warnings[0], "mode 0644") {
		t.Errorf("a file that others can read: %q, %v", found.Warnings, err)
	}
}

func FuzzParseFile(f *testing.F) {
	for _, s := range []string{"ID=a\nexport KEY='b\nc' # d\n", "A=\"\n\n\"", "\xef\xbb\xbfID=\r\n", "KEY b", "CA_PEM=\"-----BEGIN X\\n\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		raw, err := ParseFile(text)
		if err != nil {
			if len(err.Error()) > 100 {
				t.Fatalf("an error that shows the file: %v", err)
			}
			return
		}
		raw.CAFile = "" // a fuzzer has no business with files
		if found, err := raw.Check("fuzz", FileKey); err == nil {
			mustBeSound(t, found)
		}
	})
}
