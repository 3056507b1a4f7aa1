package enroll

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/secret"
)

func TestJudge(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	whole := Evidence{
		Unit: Whole, ChainsToCA: true, WishedCA: true, NotBefore: begin, NotAfter: begin.Add(100 * time.Hour),
		PlatformURL: "https://p.example", Instance: "i",
	}
	with := func(alter func(*Evidence)) Evidence { e := whole; alter(&e); return e }
	at := func(hours int) time.Time { return begin.Add(time.Duration(hours) * time.Hour) }
	seen := map[Situation]bool{}
	for _, c := range []struct {
		name   string
		e      Evidence
		now    time.Time
		want   Situation
		usable bool
	}{
		{"nothing", Evidence{}, at(1), None, false},
		{"key only", Evidence{Pending: true}, at(1), KeyOnly, false},
		{"damaged", Evidence{Unit: Unreadable}, at(1), Damaged, false},
		{"damaged, and a key", Evidence{Unit: Unreadable, Pending: true}, at(1), Damaged, false},
		{"half", Evidence{Unit: Half}, at(1), HalfPair, false},
		{"half, and a key", Evidence{Unit: Half, Pending: true}, at(1), HalfPair, false},
		{"valid", whole, at(1), Valid, true},
		{"valid, first instant", whole, at(0), Valid, true},
		{"valid, and a key", with(func(e *Evidence) { e.Pending = true }), at(1), Valid, true},
		{"valid, as wished", with(func(e *Evidence) {
			e.Wish = Wish{PlatformURL: "https://p.example", InstanceID: "i", CAPEM: []byte("x")}
		}), at(1), Valid, true},
		{"not yet", whole, begin.Add(-time.Second), NotYetValid, true},
		{"clock 15 years back", whole, begin.AddDate(-15, 0, 0), NotYetValid, true},
		{"before three quarters", whole, at(75).Add(-time.Second), Valid, true},
		{"three quarters", whole, at(75), Expiring, true},
		{"last instant", whole, at(100).Add(-time.Second), Expiring, true},
		{"expired", whole, at(100), Expired, false},
		{"clock 15 years ahead", whole, begin.AddDate(15, 0, 0), Expired, false},
		{"other platform", with(func(e *Evidence) { e.Wish.PlatformURL = "https://q.example" }), at(1), OtherPlatform, false},
		{"expired there", with(func(e *Evidence) { e.Wish.PlatformURL = "https://q.example" }), at(200), OtherPlatform, false},
		{"other instance", with(func(e *Evidence) { e.Wish.InstanceID = "j" }), at(1), OtherInstance, false},
		{"no chain", with(func(e *Evidence) { e.ChainsToCA = false }), at(1), CARolled, false},
		{"no chain, expired", with(func(e *Evidence) { e.ChainsToCA = false }), at(200), Expired, false},
		{"key away", Evidence{Unit: Away}, at(1), KeyAway, false},
		{"revoked", with(func(e *Evidence) { e.Said = nodeapi.CodeCertificateRevoked }), at(1), Revoked, false},
		{"revoked and expired", with(func(e *Evidence) { e.Said = nodeapi.CodeCertificateRevoked }), at(200), Revoked, false},
		{"superseded", with(func(e *Evidence) { e.Said = nodeapi.CodeCertificateSuperseded }), at(1), Superseded, false},
		{"inactive", with(func(e *Evidence) { e.Said = nodeapi.CodeNodeInactive }), at(1), Inactive, true},
		{"not yet, and not good by the platform's word", with(func(e *Evidence) { e.Said = nodeapi.CodeCertificateExpired }), begin.Add(-time.Hour), Expired, false},
		{"expired by the platform's word", with(func(e *Evidence) { e.Said = nodeapi.CodeCertificateExpired }), at(1), Expired, false},
		{"a word without a meaning", with(func(e *Evidence) { e.Said = nodeapi.CodeUnauthorized }), at(1), Valid, true},
		{"revoked there", with(func(e *Evidence) { e.Said, e.Wish.PlatformURL = nodeapi.CodeCertificateRevoked, "https://q.example" }), at(1), OtherPlatform, false},
		{"other CA wished", with(func(e *Evidence) { e.WishedCA = false }), at(1), CAMismatch, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Judge(c.e, c.now)
			if got != c.want || got.Usable() != c.usable {
				t.Errorf("%v, usable %v; want %v, %v", got, got.Usable(), c.want, c.usable)
			}
		})
		seen[c.want] = true
	}
	for s := range situationTexts {
		if !seen[s] {
			t.Errorf("%v isn't tested", s)
		}
		if text, err := s.MarshalText(); err != nil || string(text) != s.String() {
			t.Errorf("%v as text: %q, %v", s, text, err)
		}
	}
	if s := Situation(99); s.Usable() || s.String() != "situation 99" {
		t.Errorf("an unknown situation: %v", s)
	}
}

// TestSituationsOnDisk brings a directory into each situation and looks what Inspect, Load and
// Ensure make of it, without and with a token.
func TestSituationsOnDisk(t *testing.T) {
	other := pkitest.NewCA(t, "Other CA")
	edit := func(alter func(*unit)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, unitFile)
			var u unit
			b, err := os.ReadFile(path)
			if err == nil {
				err = json.Unmarshal(b, &u)
			}
			if err != nil {
				t.Fatal(err)
			}
			alter(&u)
			if b, err = json.Marshal(u); err == nil {
				err = os.WriteFile(path, b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	said := func(code nodeapi.Code) func(*testing.T, string) {
		return edit(func(u *unit) { u.Said = &verdict{Code: code, At: time.Now()} })
	}
	put := func(name, content string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	key, _ := newKey()
	keyPEM, _ := encodeKey(key)
	for _, c := range []struct {
		name   string
		alter  func(*testing.T, string)
		wish   Wish
		after  time.Duration
		want   Situation
		reason string
	}{
		{name: "valid", want: Valid},
		{name: "valid, with a newer agent's field", want: Valid, alter: func(t *testing.T, dir string) {
			path := filepath.Join(dir, unitFile)
			b, _ := os.ReadFile(path)
			put(unitFile, strings.Replace(string(b), "{", `{"tpm":true,`, 1))(t, dir)
		}},
		{name: "as wished", wish: Wish{InstanceID: strings.ToUpper(instance)}, want: Valid},
		{name: "gone", alter: func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, unitFile)) }, want: None, reason: "isn't enrolled"},
		{name: "not yet valid", after: -year, want: NotYetValid, reason: "begins at"},
		{name: "expiring", after: 80 * 24 * time.Hour, want: Expiring, reason: "ends at"},
		{name: "expired", after: year, want: Expired, reason: "ended at"},
		{name: "other platform", wish: Wish{PlatformURL: "https://Other.example/"}, want: OtherPlatform, reason: "not for https://other.example"},
		{name: "other instance", wish: Wish{InstanceID: "other-7"}, want: OtherInstance, reason: "those of instance " + instance},
		{name: "other CA wished", wish: Wish{CAPEM: other.PEM()}, want: CAMismatch, reason: "isn't the one that was asked for"},
		{name: "other CA stored", alter: edit(func(u *unit) { u.CAPEM = string(other.PEM()) }), want: CARolled, reason: "doesn't lead to the stored CA"},
		{name: "no key", alter: edit(func(u *unit) { u.KeyPEM = "" }), want: HalfPair, reason: "one of them is missing"},
		{name: "no certificate", alter: edit(func(u *unit) { u.CertPEM = "" }), want: HalfPair, reason: "one of them is missing"},
		{name: "another key", alter: edit(func(u *unit) { u.KeyPEM = string(keyPEM) }), want: HalfPair, reason: "the certificate is for another key"},
		{name: "damaged key", alter: edit(func(u *unit) { u.KeyPEM = "x" }), want: Damaged, reason: "the key isn't a PKCS#8 PEM"},
		{name: "damaged certificate", alter: edit(func(u *unit) { u.CertPEM = "x" }), want: Damaged, reason: "isn't a PEM certificate"},
		{name: "no CA", alter: edit(func(u *unit) { u.CAPEM = "" }), want: Damaged, reason: "CA certificate"},
		{name: "http", alter: edit(func(u *unit) { u.PlatformURL = "http://p.example" }), want: Damaged, reason: "http"},
		{name: "revoked", alter: said(nodeapi.CodeCertificateRevoked), want: Revoked, reason: "is revoked"},
		{name: "superseded", alter: said(nodeapi.CodeCertificateSuperseded), want: Superseded, reason: "another machine has a copy"},
		{name: "inactive", alter: said(nodeapi.CodeNodeInactive), want: Inactive, reason: "out of service"},
		{name: "expired by the platform's word", alter: said(nodeapi.CodeCertificateExpired), want: Expired, reason: "has ended"},
		{name: "not a TPM's key", alter: edit(func(u *unit) { u.storedKey = storedKey{TPMKey: "x"} }), want: Damaged, reason: "is damaged"},
		{name: "other name in the file", alter: edit(func(u *unit) { u.InstanceID = "x" }), want: Damaged, reason: "the file says instance"},
		{name: "newer", alter: edit(func(u *unit) { u.Version = 9 }), want: Damaged, reason: "its version is 9"},
		{name: "torn", alter: put(unitFile, `{"version":1,"key_pem":"-----BEG`), want: Damaged, reason: "isn't JSON"},
		{name: "empty", alter: put(unitFile, ""), want: Damaged, reason: "isn't JSON"},
		{name: "huge", alter: put(unitFile, strings.Repeat(" ", maxFile+1)), want: Damaged, reason: "too large"},
		{name: "FIFO", alter: func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, unitFile))
			if err := syscall.Mkfifo(filepath.Join(dir, unitFile), 0o600); err != nil {
				t.Fatal(err)
			}
		}, want: Damaged, reason: "not a regular file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlatform(t)
			dir := t.TempDir()
			if _, _, err := Ensure(t.Context(), p.options(dir)); err != nil {
				t.Fatal(err)
			}
			if c.alter != nil {
				c.alter(t, dir)
			}
			now := time.Now().Add(c.after)
			s, err := Inspect(dir, c.wish, now)
			if err != nil || s.Situation != c.want || !strings.Contains(s.Reason, c.reason) || (s.Reason == "") != (c.reason == "") {
				t.Fatalf("%v (%q), %v; want %v (%q)", s.Situation, s.Reason, err, c.want, c.reason)
			}
			if strings.Contains(s.Reason, "BEG") {
				t.Errorf("the reason shows the file: %s", s.Reason)
			}
			if c.wish.PlatformURL == "" && c.wish.InstanceID == "" && c.wish.CAPEM == nil {
				got, err := Load(dir, now)
				if (err == nil) != c.want.Usable() || (got == nil) == c.want.Usable() {
					t.Errorf("load: %v, %v", got, err)
				}
				if err != nil && (!strings.Contains(err.Error(), c.reason) || fault.HintOf(err) == "") {
					t.Errorf("load: %v (hint %q)", err, fault.HintOf(err))
				}
			}
			before := readDir(t, dir)
			o := p.options(dir)
			o.Wish, o.HTTP.Now, o.Discover = c.wish, func() time.Time { return now }, nil
			_, was, err := Ensure(t.Context(), o)
			if was != c.want || (err == nil) != c.want.Usable() {
				t.Errorf("ensure: %v, %v", was, err)
			}
			// A key that waits for its renewal is new.
			if err := os.Remove(filepath.Join(dir, pendingFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if after := readDir(t, dir); after != before {
				t.Errorf("a failed ensure changed the disk:\n%s\n%s", before, after)
			}
			if c.want.Usable() || c.after != 0 || c.wish.PlatformURL != "" || c.wish.InstanceID != "" || c.wish.CAPEM != nil {
				return
			}
			// With a token, every damage can be mended.
			o = p.options(dir)
			o.Discover = func(context.Context) (Bootstrap, error) {
				b := p.bootstrap()
				b.Token = secret.New(token + "-second")
				return b, nil
			}
			if _, was, err := Ensure(t.Context(), o); err != nil || was != c.want {
				t.Errorf("with a token: %v, %v", was, err)
			}
			if s, err := Inspect(dir, Wish{}, now); err != nil || s.Situation != Valid {
				t.Errorf("with a token, after: %v, %v", s.Situation, err)
			}
		})
	}
}

// TestMoveToOtherPlatform keeps the old credentials until the other platform's are there.
func TestMoveToOtherPlatform(t *testing.T) {
	a, b := newPlatform(t), newPlatform(t)
	dir := t.TempDir()
	old, _, err := Ensure(t.Context(), a.options(dir))
	if err != nil {
		t.Fatal(err)
	}
	o := b.options(dir)
	o.Wish = Wish{PlatformURL: b.URL, CAPEM: b.ca.PEM()}
	b.fail = 1
	if _, was, err := Ensure(t.Context(), o); err == nil || was != OtherPlatform {
		t.Fatalf("%v, %v", was, err)
	}
	if c, err := Load(dir, time.Now()); err != nil || !c.Leaf.Equal(old.Leaf) {
		t.Fatalf("after a failed move: %v, %v", c, err)
	}
	if c, _, err := Ensure(t.Context(), o); err != nil || c.PlatformURL != b.URL {
		t.Fatalf("%v, %v", c, err)
	}
	if c, err := Load(dir, time.Now()); err != nil || c.PlatformURL != b.URL || !shareCA(c.CAs, []*x509.Certificate{b.ca.Cert}) {
		t.Errorf("after the move: %v, %v", c, err)
	}
	o.Wish.PlatformURL = "http://b"
	if _, _, err := Ensure(t.Context(), o); fault.KindOf(err) != fault.Refuse {
		t.Errorf("a wish for http: %v", err)
	}
}

func TestInspectTouchesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	s, err := Inspect(dir, Wish{}, time.Now())
	if err != nil || s.Situation != None || s.Reason != "this node isn't enrolled" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(file, Wish{}, time.Now()); err == nil {
		t.Error("a file was taken for a directory")
	}
}

func TestDirectoryIsPrivate(t *testing.T) {
	p := newPlatform(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Ensure(t.Context(), p.options(dir)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if os.Geteuid() != 0 {
		oracle.Missing(t, "giving a directory away needs root; run the tests as root")
	}
	if err := os.Chown(dir, 12345, -1); err != nil {
		t.Fatal(err)
	}
	_, _, err := Ensure(t.Context(), p.options(dir))
	refusal{fault.Refuse, "it belongs to user 12345", "give the directory"}.check(t, err)
}

// readDir returns names and contents, to compare, without the lock's file.
func readDir(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == lockFile {
			continue
		}
		b.WriteString(e.Name() + "\n")
		if e.Type().IsRegular() {
			content, _ := os.ReadFile(filepath.Join(dir, e.Name()))
			b.Write(content)
		}
	}
	return b.String()
}
