package boot

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
)

const testKey = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt
6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
-----END PUBLIC KEY-----
`

const testPolicy = "schema_version: 1\nintegrity: enforced\nrules:\n  - name: r\n    images: [\"example.org/**\"]\n    keys: [{file: keys/k.pub}]\n"

// trustDir makes a directory with a trust policy, its key and other things.
func trustDir(t *testing.T, policyName string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{policyName: testPolicy, "keys/k.pub": testKey, "keys/old.pub": testKey, "notes.txt": "nobody's business"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestTrustTravels with the files that it names, byte for byte, and with nothing else.
func TestTrustTravels(t *testing.T) {
	for _, name := range []string{"trust.yaml", "site-policy.yaml"} {
		dir := trustDir(t, name)
		trust, err := LoadTrust(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if trust.Verifier == nil || trust.Required != mount.Enforced {
			t.Errorf("trust %+v", trust)
		}
		if got := slices.Sorted(maps.Keys(trust.Files)); !slices.Equal(got, []string{"keys/k.pub", TrustName}) {
			t.Errorf("files %v", got)
		}
		if string(trust.Files[TrustName]) != testPolicy || string(trust.Files["keys/k.pub"]) != testKey {
			t.Errorf("files %q", trust.Files)
		}

		// What was taken along says the same.
		l := &luggage{agent: open(t, os.Args[0]), trust: trust.Files}
		defer l.close()
		run := filepath.Join(t.TempDir(), "run")
		if err := l.unpack(run); err != nil {
			t.Fatal(err)
		}
		again, err := LoadTrust(filepath.Join(run, "trust", TrustName))
		if err != nil || again.Required != mount.Enforced || !maps.EqualFunc(again.Files, trust.Files, func(a, b []byte) bool { return string(a) == string(b) }) {
			t.Errorf("taken along: %+v, %v", again, err)
		}
	}
}

func TestTrustRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(dir string) error
		words []string
	}{
		{"no policy", func(dir string) error { return os.Remove(filepath.Join(dir, TrustName)) }, []string{TrustName, "no such file"}},
		{"no directory", os.RemoveAll, []string{TrustName, "no such file"}},
		{"a policy that is a directory", func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, TrustName)), os.Mkdir(filepath.Join(dir, TrustName), 0o755))
		}, []string{"isn't a regular file"}},
		{"a policy that is a FIFO", func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, TrustName)), syscall.Mkfifo(filepath.Join(dir, TrustName), 0o600))
		}, []string{"isn't a regular file"}},
		{"a policy without end", func(dir string) error { return os.Truncate(filepath.Join(dir, TrustName), 1<<40) }, []string{"larger than"}},
		{"no key", func(dir string) error { return os.Remove(filepath.Join(dir, "keys/k.pub")) }, []string{"keys/k.pub"}},
		{"a key that leads out", func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "keys/k.pub")), os.Symlink("/etc/hostname", filepath.Join(dir, "keys/k.pub")))
		}, []string{"keys/k.pub"}},
		{"a key that is a FIFO", func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "keys/k.pub")), syscall.Mkfifo(filepath.Join(dir, "keys/k.pub"), 0o600))
		}, []string{"keys/k.pub"}},
		{"no rules", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, TrustName), []byte("schema_version: 1\n"), 0o644)
		}, []string{"no rules"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := trustDir(t, TrustName)
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			_, err := LoadTrust(filepath.Join(dir, TrustName))
			if err == nil || fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Verify || fault.HintOf(err) == "" {
				t.Fatalf("error %v, kind %v, hint %q", err, fault.KindOf(err), fault.HintOf(err))
			}
			for _, word := range append(c.words, dir) {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q doesn't say %q", err, word)
				}
			}
		})
	}
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestFactsTravel from the boot to whoever asks in the booted system.
func TestFactsTravel(t *testing.T) {
	b := newBoot(Config{Namespace: true, Now: time.Now})
	b.facts = Facts{InstanceID: "i", Generation: 7, Remarks: []string{"a remark"}, Pulled: Pulled{Modules: 2}, Level: mount.Checked}
	b.voice.w, b.trust = io.Discard, &Trust{}
	b.settings.Identity = []string{}
	b.voice.say("a line")
	l, err := b.pack()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	root := t.TempDir()
	if _, err := ReadFacts(root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before the boot: %v", err)
	}
	if err := l.unpack(filepath.Join(root, RunDir)); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFacts(root)
	if err != nil || got.Generation != 7 || got.InstanceID != "i" || got.Pulled.Modules != 2 || got.Remarks[0] != "a remark" || got.Level != mount.Checked {
		t.Errorf("facts %+v, %v", got, err)
	}
	if j := got.Journal; j.Outcome != HandedOver || len(j.Lines) != 1 || j.Lines[0].Text != "a line" || j.Mode != Namespace || got.Persist.Kind != "directory" {
		t.Errorf("journal %+v", j)
	}
	if got.IdentitySources == nil || len(got.IdentitySources) != 0 {
		t.Errorf("no source counted at boot, and %v in the system", got.IdentitySources)
	}
	if got.StateDir != "/persist/var/lib/powernode" {
		t.Errorf("state directory %s", got.StateDir)
	}
	info, err := os.Stat(filepath.Join(root, AgentPath))
	if err != nil || info.Mode().Perm() != 0o755 || info.Size() == 0 {
		t.Errorf("the agent: %v, %v", info, err)
	}
	if err := os.WriteFile(filepath.Join(root, RunDir, "boot.json.new"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(root, RunDir, "boot.json.new"), filepath.Join(root, RunDir, "boot.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFacts(root); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of rubbish: %v", err)
	}
}
