package nodeconfig

import (
	"crypto/dsa" //nolint:staticcheck // what a node must refuse
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// line returns a public key as a line of authorized_keys.
func line(t testing.TB, public any, comment string) string {
	t.Helper()
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + comment
}

// ed returns a new Ed25519 key as a line.
func ed(t testing.TB, comment string) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return line(t, public, comment)
}

func rsaLine(t testing.TB, bits int) string {
	t.Helper()
	// The number needn't be a product of primes to be of that length.
	n := new(big.Int).SetBit(big.NewInt(1), bits-1, 1)
	return line(t, &rsa.PublicKey{N: n, E: 65537}, "rsa")
}

func TestKeys(t *testing.T) {
	curve, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := ed(t, "alice@example.org")
	sk := ssh.Marshal(struct {
		Type, Key   string
		Application string
	}{ssh.KeyAlgoSKED25519, strings.Repeat("k", 32), "ssh:"})
	for _, text := range []string{
		a, line(t, &curve.PublicKey, "bob"), rsaLine(t, 2048), rsaLine(t, 16384),
		ssh.KeyAlgoSKED25519 + " " + base64.StdEncoding.EncodeToString(sk) + " token",
		strings.TrimSuffix(a, " alice@example.org"),
		`restrict ` + a,
		`from="10.0.0.0/8,*.example.org",no-pty,command="/usr/bin/backup \"daily\" now" ` + a,
		`environment="A=1",environment="B=2",expiry-time="20301231Z" ` + a,
		`permitopen="host:80",permitopen="[::1]:*",permitlisten="8080",tunnel="0",CERT-authority,principals="a,b" ` + a,
		a + " ёжик with words",
	} {
		k, err := ParseKey(text)
		if err != nil {
			t.Errorf("%.80s: %v", text, err)
			continue
		}
		if k.String() != text {
			t.Errorf("%q came back as %q", text, k.String())
		}
		if !strings.HasPrefix(k.Fingerprint(), "SHA256:") {
			t.Errorf("%.80s: fingerprint %q", text, k.Fingerprint())
		}
	}
	if k, err := ParseKey("  \trestrict\t " + strings.ReplaceAll(a, " ", "\t ") + "\t"); err != nil || k.String() != "restrict "+a {
		t.Errorf("blanks: %q, %v", k, err)
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	var d dsa.PrivateKey
	d.P, d.Q, d.G, d.Y = new(big.Int).SetBit(big.NewInt(1), 1023, 1), new(big.Int).SetBit(big.NewInt(1), 159, 1), big.NewInt(2), big.NewInt(4)
	a := ed(t, "alice")
	blob := strings.Fields(a)[1]
	for _, text := range []string{
		"", " ", "# comment", "ssh-ed25519", "ssh-ed25519 ", blob, "restrict", "restrict ",
		"ssh-ed25519 AAAA", "ssh-ed25519 " + blob[:len(blob)-4], "ssh-ed25519 " + blob + "AAAA", "ssh-ed25519 " + blob + "=",
		"ssh-rsa " + blob, line(t, &d.PublicKey, "dsa"), rsaLine(t, 1024), rsaLine(t, 16385),
		"ssh-ed25519-cert-v01@openssh.com " + blob,
		a + "\n" + ed(t, "mallory"), a + "\rx", a + "\x00", a + "\x1b[31m", a + "\u202e", a + "\xff", a + " " + strings.Repeat("x", nodeapi.MaxKeyLine),
		`unknown ` + a, `command=/bin/sh ` + a, `command="/bin/sh ` + a, `command ` + a, `command="" ` + a, `no-pty="yes" ` + a, `no-pty, ` + a, `,no-pty ` + a,
		`command="a",command="b" ` + a, `command="a"b ` + a, `environment="x y" ` + a, `expiry-time="tomorrow" ` + a, `permitopen="no port" ` + a,
		`"` + a, `restrict restrict ` + a, `no-pty=` + " " + a,
	} {
		if k, err := ParseKey(text); err == nil {
			t.Errorf("%q is accepted as %q", text, k)
		} else if len(err.Error()) > 200 {
			t.Errorf("%q: a message of %d bytes", text, len(err.Error()))
		}
	}
}

func TestListsOfKeys(t *testing.T) {
	a, b := ed(t, "a"), ed(t, "b")
	same := strings.TrimSuffix(a, "a") + "again"
	for _, c := range []struct {
		name  string
		lines []string
		want  int
		err   string
	}{
		{"two", []string{a, b}, 2, ""},
		{"one said twice", []string{a, b, same}, 2, ""},
		{"none", nil, 0, "empty"},
		{"one is bad", []string{a, "ssh-ed25519 x"}, 0, "key 2 of 2"},
		{"an empty line", []string{a, ""}, 0, "key 2 of 2"},
		{"with other options", []string{a, "restrict " + a}, 0, "other options"},
		{"too many", make([]string, nodeapi.MaxUserKeys+1), 0, "more than"},
	} {
		keys, err := ParseKeys(c.lines)
		if len(keys) != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %d keys, %v", c.name, len(keys), err)
		}
	}
	if got := KeyLines("\n# comment\r\n  " + a + "\r\n\t\n" + b); len(got) != 2 || got[0] != a || got[1] != b {
		t.Errorf("%q", got)
	}
}

// TestKeysAgainstOpenSSH has ssh-keygen judge what we accept.
func TestKeysAgainstOpenSSH(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("no ssh-keygen on this machine")
	}
	dir := t.TempDir()
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		path := filepath.Join(dir, kind)
		if out, err := exec.CommandContext(t.Context(), keygen, "-q", "-t", kind, "-N", "", "-C", "a comment", "-f", path).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		text, err := os.ReadFile(path + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		k, err := ParseKey(strings.TrimSpace(string(text)))
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		// With options, as ssh-keygen reads an authorized_keys file.
		file := filepath.Join(dir, kind+".keys")
		k.Options = `restrict,command="/bin/echo \"x\"",from="10.0.0.0/8"`
		if err := os.WriteFile(file, []byte(k.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), keygen, "-l", "-f", file).CombinedOutput()
		if err != nil || !strings.Contains(string(out), k.Fingerprint()) {
			t.Errorf("%s: ssh-keygen says %s, %v; we %s", kind, out, err, k.Fingerprint())
		}
	}
}

func FuzzParseKey(f *testing.F) {
	a := ed(f, "alice")
	f.Add(a)
	f.Add(`from="10.0.0.0/8",command="x \"y\"" ` + a)
	f.Add("ssh-rsa AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ParseKey(text)
		if err != nil {
			return
		}
		shown := k.String()
		if strings.ContainsAny(shown, "\n\r\x00") {
			t.Fatalf("%q holds a line of its own", shown)
		}
		again, err := ParseKey(shown)
		if err != nil && len(shown) <= nodeapi.MaxKeyLine || err == nil && again.String() != shown {
			t.Fatalf("%q gives %q, and that %v", text, shown, err)
		}
		// What we take, the other implementation must read as the same key.
		other, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(shown))
		if err != nil || len(rest) > 0 || string(other.Marshal()) != string(k.Blob) {
			t.Fatalf("%q: crypto/ssh reads it otherwise: %v", shown, errors.Join(err))
		}
	})
}
