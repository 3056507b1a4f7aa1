package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/fault"
)

// presents checks that a server certificate of c is good for who trusts exactly roots, and returns what the
// server sends.
func presents(c *CA, now time.Time, roots *x509.CertPool) error {
	s, err := c.NewServerCertificate([]string{"platform.example"})
	if err != nil {
		return err
	}
	cert, err := s.GetCertificate(nil)
	if err != nil {
		return err
	}
	return verifies(cert.Certificate, now, roots)
}

func verifies(sent [][]byte, now time.Time, roots *x509.CertPool) error {
	between := x509.NewCertPool()
	for _, der := range sent[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		between.AddCert(cert)
	}
	leaf, err := x509.ParseCertificate(sent[0])
	if err != nil {
		return err
	}
	_, err = leaf.Verify(x509.VerifyOptions{DNSName: "platform.example", Roots: roots, Intermediates: between, CurrentTime: now})
	return err
}

// signsFor checks that what c signs is proven to who trusts exactly roots.
func signsFor(t testing.TB, c *CA, now time.Time, roots *x509.CertPool) error {
	t.Helper()
	signature, signer, err := c.Sign([]byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	certs := parse(t, signer)
	sum := sha256.Sum256([]byte("message"))
	if !ecdsa.VerifyASN1(certs[0].PublicKey.(*ecdsa.PublicKey), sum[:], signature) {
		t.Error("the first certificate isn't the signer's")
	}
	between := x509.NewCertPool()
	for _, cert := range certs {
		between.AddCert(cert)
	}
	err = errors.New("no certificate of the signer's key")
	for _, cert := range certs {
		if !bytes.Equal(cert.RawSubjectPublicKeyInfo, certs[0].RawSubjectPublicKeyInfo) {
			continue
		}
		if _, err = cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
			return nil
		}
	}
	return err
}

func parse(t testing.TB, text []byte) []*x509.Certificate {
	t.Helper()
	var list []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, cert)
	}
	return list
}

func poolOf(t testing.TB, text []byte) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	for _, cert := range parse(t, text) {
		pool.AddCert(cert)
	}
	return pool
}

// issued issues a node's certificate and returns it.
func issued(t testing.TB, c *CA) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := c.IssueNode("node", Request{Key: key.Public()}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, leaf.PEM)[0]
}

func goodClient(cert *x509.Certificate, pool *x509.CertPool, now time.Time) error {
	_, err := cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}

func states(c *CA) string {
	var list []string
	for _, a := range c.Authorities() {
		list = append(list, string(a.State))
	}
	return strings.Join(list, " ")
}

// TestRolls goes through three rolls: whoever trusts any of the authorities that ever were is led to the
// present one.
func TestRolls(t *testing.T) {
	now := start
	path := t.TempDir()
	reopen := func() *CA {
		t.Helper()
		c, err := Open(openDir(t, path, nil), func() time.Time { return now })
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := reopen()
	var bundles [][]byte
	check := func(c *CA) {
		t.Helper()
		bundles = append(bundles, c.Bundle())
		for i, b := range bundles {
			if err := presents(c, now, poolOf(t, b)); err != nil {
				t.Errorf("%s: for who has bundle %d: %v", states(c), i, err)
			}
			if err := signsFor(t, c, now, poolOf(t, b)); err != nil {
				t.Errorf("%s: the signature for who has bundle %d: %v", states(c), i, err)
			}
		}
		if public, err := os.ReadFile(filepath.Join(path, bundleName)); err != nil || !bytes.Equal(public, c.Bundle()) {
			t.Errorf("%s isn't the bundle: %v", bundleName, err)
		}
		again := reopen()
		if states(again) != states(c) || again.BundleSHA256() != c.BundleSHA256() {
			t.Errorf("reopened: %s, was %s", states(again), states(c))
		}
	}
	check(c)
	for round := range 3 {
		before := issued(t, c)
		old := c.Authorities()[len(c.Authorities())-1].ID
		now = now.Add(24 * time.Hour)
		next, err := c.Prepare()
		if err != nil {
			t.Fatal(err)
		}
		if !c.Current(issued(t, c)) || !c.Current(before) || len(parse(t, c.Bundle())) != 2 {
			t.Errorf("round %d: prepared, it signs already", round)
		}
		check(c)
		if _, err := c.Prepare(); err == nil || fault.HintOf(err) == "" {
			t.Errorf("a second one is prepared: %v", err)
		}
		told := c.BundleSHA256()
		now = now.Add(24 * time.Hour)
		if got, err := c.Activate(); err != nil || got != next {
			t.Fatal(got, err)
		}
		after := issued(t, c)
		if c.BundleSHA256() != told || c.Current(before) || !c.Current(after) || !c.Leads(old) {
			t.Errorf("round %d: activated: bundle changed %v, before %v, after %v", round, c.BundleSHA256() != told, c.Current(before), c.Current(after))
		}
		for _, cert := range []*x509.Certificate{before, after} {
			if err := goodClient(cert, c.ClientPool(), now); err != nil {
				t.Errorf("round %d: activated: %v", round, err)
			}
		}
		check(c)
		if _, err := c.Activate(); err == nil || fault.HintOf(err) == "" {
			t.Errorf("activated twice: %v", err)
		}
		for id, want := range map[string]string{next: "is the active one", "none": "there is no authority"} {
			if err := c.Retire(id); err == nil || !strings.Contains(err.Error(), want) || fault.HintOf(err) == "" {
				t.Errorf("retire %s: %v", id, err)
			}
		}
		now = now.Add(24 * time.Hour)
		if err := c.Retire(old); err != nil {
			t.Fatal(err)
		}
		if err := c.Retire(old); err == nil {
			t.Error("retired twice")
		}
		if len(parse(t, c.Bundle())) != 1 || goodClient(before, c.Pool(), now) == nil || goodClient(before, c.ClientPool(), now) != nil {
			t.Errorf("round %d: retired, and trusted still", round)
		}
		check(c)
	}
	if files, _ := filepath.Glob(filepath.Join(path, "authority*.pem")); len(files) != 1 {
		t.Errorf("keys on the disk: %v", files)
	}
	// The cross-certificates end with the first authority's own validity; the rest goes on.
	now = parse(t, bundles[0])[0].NotAfter.Add(time.Hour)
	last := reopen()
	if err := presents(last, now, poolOf(t, bundles[0])); err == nil {
		t.Error("an expired authority leads to the present one")
	}
	if err := presents(last, now, poolOf(t, bundles[len(bundles)-1])); err != nil {
		t.Error(err)
	}
}

// TestDropPrepared changes one's mind.
func TestDropPrepared(t *testing.T) {
	path := t.TempDir()
	c, err := Open(openDir(t, path, nil), at(start))
	if err != nil {
		t.Fatal(err)
	}
	sum := c.BundleSHA256()
	id, err := c.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Retire(id); err != nil || c.BundleSHA256() != sum {
		t.Errorf("%v, %s", err, states(c))
	}
	if _, err := c.Prepare(); err != nil {
		t.Error(err)
	}
}

// oldAuthority writes an authority as it was made before authorities could roll.
func oldAuthority(t testing.TB, path string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := newSerial()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Powernode platform CA " + authorityID(serial)}, NotBefore: start.Add(-time.Hour), NotAfter: start.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	data, err := (&authority{key: key, cert: cert}).encodeUnit()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(path, firstUnit), data)
	return encode(cert)
}

// TestOldAuthority rolls from an authority that can't sign others: the platform shows itself by it until it is
// retired, and nothing leads from it afterwards.
func TestOldAuthority(t *testing.T) {
	now := start
	path := t.TempDir()
	old := oldAuthority(t, path)
	c, err := Open(openDir(t, path, nil), func() time.Time { return now })
	if err != nil || !bytes.Equal(c.Bundle(), old) {
		t.Fatal(err)
	}
	first := c.Authorities()[0].ID
	if _, err := c.Prepare(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Activate(); err != nil {
		t.Fatal(err)
	}
	both := poolOf(t, c.Bundle())
	for name, pool := range map[string]*x509.CertPool{"the old one": poolOf(t, old), "both": both} {
		if err := errors.Join(presents(c, now, pool), signsFor(t, c, now, pool)); err != nil {
			t.Errorf("who trusts %s: %v", name, err)
		}
	}
	if !c.Current(issued(t, c)) || c.Leads(first) || !c.Authorities()[0].Presents || c.Authorities()[1].CrossSignedBy != "" {
		t.Errorf("%+v", c.Authorities())
	}
	// Once it has expired, it is nothing to show.
	now = start.Add(authorityLife - time.Hour)
	late, err := Open(openDir(t, path, nil), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	if err := presents(late, now, both); err != nil {
		t.Error(err)
	}
	now = start
	if err := c.Retire(first); err != nil {
		t.Fatal(err)
	}
	if err := presents(c, now, poolOf(t, c.Bundle())); err != nil {
		t.Error(err)
	}
	if presents(c, now, poolOf(t, old)) == nil {
		t.Error("something leads from the old one to the new one")
	}
}

// TestRollFaults cuts a whole roll at every operation on the disk, by failing it and by killing the process:
// what is found afterwards is one of the states on the way, who trusted the authority of the beginning still
// trusts, and no key is left that nothing refers to.
func TestRollFaults(t *testing.T) {
	c, err := Open(openDir(t, t.TempDir(), nil), at(start))
	if err != nil {
		t.Fatal(err)
	}
	unit, err := c.view.Load().active.encodeUnit()
	if err != nil {
		t.Fatal(err)
	}
	origin := poolOf(t, c.Bundle())
	scenario := durabletest.Scenario{
		Setup: func(t testing.TB, dir string) { write(t, filepath.Join(dir, firstUnit), unit) },
		Run: func(path string, hook durable.Hook) error {
			dir, err := durable.OpenDir(path, hook)
			if err != nil {
				return err
			}
			defer dir.Close()
			c, err := Open(dir, at(start))
			if err != nil {
				return err
			}
			old := c.Authorities()[0].ID
			if _, err := c.Prepare(); err != nil {
				return err
			}
			if _, err := c.Activate(); err != nil {
				return err
			}
			return c.Retire(old)
		},
		Check: func(t testing.TB, path, op string, _ error) {
			t.Helper()
			dir, err := durable.OpenDir(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			if err := dir.Sweep(); err != nil {
				t.Fatal(err)
			}
			c, err := Open(dir, at(start))
			if err != nil {
				t.Fatalf("%s: %v", op, err)
			}
			known := map[string]bool{"active": true, "active prepared": true, "trusted active": true, "retired active": true}
			if got := states(c); !known[got] || op == "" && got != "retired active" {
				t.Errorf("%s: %s", op, got)
			}
			if err := errors.Join(presents(c, start, origin), signsFor(t, c, start, origin), presents(c, start, c.Pool())); err != nil {
				t.Errorf("%s: %v", op, err)
			}
			files, err := filepath.Glob(filepath.Join(path, "authority*.pem"))
			if err != nil {
				t.Fatal(err)
			}
			// Of a retired one there is no key; beside the others' there may be one of a preparation that was cut off.
			known = map[string]bool{firstUnit: true}
			for _, a := range c.view.Load().list {
				known[unitPrefix+a.id+unitSuffix] = true
			}
			strays := slices.DeleteFunc(slices.Clone(files), func(f string) bool { return known[filepath.Base(f)] })
			if len(files)-len(strays) != len(c.view.Load().trusted()) || len(strays) > 1 {
				t.Errorf("%s: %s, with the keys %v", op, states(c), files)
			}
			// And it goes on from there.
			for _, a := range c.Authorities() {
				switch a.State {
				case Trusted, Prepared:
					err = c.Retire(a.ID)
				case Active, Retired:
				}
				if err != nil {
					t.Errorf("%s: %v", op, err)
				}
			}
			if _, err := c.Prepare(); err != nil {
				t.Errorf("%s: %v", op, err)
			}
		},
	}
	scenario.FailEach(t, errors.New("the disk is gone"))
	scenario.KillEach(t)
}

// TestRecordOlderThanTheKeys: a record that comes back from a backup costs no key, which nobody could make again.
func TestRecordOlderThanTheKeys(t *testing.T) {
	path := t.TempDir()
	c := openAt(t, path)
	if _, err := c.Prepare(); err != nil {
		t.Fatal(err)
	}
	first := readAll(t, filepath.Join(path, recordName))
	if _, err := c.Activate(); err != nil {
		t.Fatal(err)
	}
	newer := readAll(t, filepath.Join(path, recordName))
	// The record of a time before the second authority.
	var r record
	if err := json.Unmarshal(first, &r); err != nil {
		t.Fatal(err)
	}
	r.Authorities = r.Authorities[:1]
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(path, recordName), text)
	older := openAt(t, path)
	if got := states(older); got != "active" {
		t.Fatal(got)
	}
	lost, err := older.Unrecorded()
	if err != nil || len(lost) != 1 || lost[0] != c.Authorities()[1].ID {
		t.Fatalf("%v, %v", lost, err)
	}
	for id, want := range map[string]string{"none": "there is no key", "../ca": "there is no authority", older.Authorities()[0].ID: "is on record"} {
		if err := older.TakeUp(id); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", id, err)
		}
	}
	write(t, filepath.Join(path, recordName), newer)
	if got := states(openAt(t, path)); got != "trusted active" {
		t.Error(got)
	}

	// Without the newer record, the key is taken up, and all is as it was.
	write(t, filepath.Join(path, recordName), text)
	older = openAt(t, path)
	copied := filepath.Join(path, unitPrefix+"copy"+unitSuffix)
	write(t, copied, readAll(t, filepath.Join(path, unitPrefix+lost[0]+unitSuffix)))
	if err := older.TakeUp("copy"); err == nil || !strings.Contains(err.Error(), "it is the key of authority "+lost[0]) {
		t.Errorf("%v", err)
	}
	if err := os.Remove(copied); err != nil {
		t.Fatal(err)
	}
	if err := older.TakeUp(lost[0]); err != nil {
		t.Fatal(err)
	}
	if err := older.TakeUp(lost[0]); err == nil || !strings.Contains(err.Error(), "prepared already") {
		t.Errorf("twice: %v", err)
	}
	if _, err := older.Activate(); err != nil {
		t.Fatal(err)
	}
	again := openAt(t, path)
	if left, err := again.Unrecorded(); err != nil || left != nil || states(again) != "trusted active" {
		t.Errorf("%v, %v, %s", left, err, states(again))
	}
	for _, a := range again.view.Load().list {
		pool := x509.NewCertPool()
		pool.AddCert(a.cert)
		if err := errors.Join(presents(again, start, pool), signsFor(t, again, start, pool)); err != nil {
			t.Errorf("who trusts %s only: %v", a.id, err)
		}
	}
	if !again.Current(issued(t, c)) {
		t.Error("what was issued before isn't of the authority that was taken up")
	}
}

func openAt(t *testing.T, path string) *CA {
	t.Helper()
	c, err := Open(openDir(t, path, nil), at(start))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func readAll(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestBundleIsBounded: who only ever prepares and activates is told to retire one day.
func TestBundleIsBounded(t *testing.T) {
	c := openAt(t, t.TempDir())
	for range maxTrusted - 1 {
		if _, err := c.Prepare(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Activate(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Prepare(); fault.KindOf(err) != fault.Refuse || !strings.Contains(fault.HintOf(err), "retire") {
		t.Fatalf("%v", err)
	}
	if err := c.Retire(c.Authorities()[0].ID); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Prepare(); err != nil {
		t.Error(err)
	}
}

func TestRecordRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(t *testing.T, path string)
		want   string
	}{
		"no record":     {func(t *testing.T, path string) { remove(t, path, recordName) }, "is there without it"},
		"no first unit": {func(t *testing.T, path string) { remove(t, path, recordName); removeUnits(t, path) }, "is there without it"},
		"unit gone":     {func(t *testing.T, path string) { remove(t, path, firstUnit) }, firstUnit},
		"record cut":    {func(t *testing.T, path string) { write(t, filepath.Join(path, recordName), []byte("{")) }, recordName},
		"record of later": {func(t *testing.T, path string) {
			write(t, filepath.Join(path, recordName), []byte(`{"version":2,"authorities":[]}`))
		}, "version 2"},
		"nothing active":   {func(t *testing.T, path string) { replace(t, path, `: "active"`, `: "trusted"`) }, "no authority is active"},
		"two active":       {func(t *testing.T, path string) { replace(t, path, `: "prepared"`, `: "active"`) }, "are active"},
		"unknown state":    {func(t *testing.T, path string) { replace(t, path, `: "prepared"`, `: "x"`) }, "unknown state"},
		"retired with key": {func(t *testing.T, path string) { replace(t, path, `: "prepared"`, `: "retired"`) }, "wrong files"},
		"units interchanged": {func(t *testing.T, path string) {
			units, err := filepath.Glob(filepath.Join(path, unitPrefix+"*"))
			if err != nil || len(units) != 1 {
				t.Fatal(units, err)
			}
			data, err := os.ReadFile(units[0])
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(path, firstUnit), data)
		}, "another authority"},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			c, err := Open(openDir(t, path, nil), at(start))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Prepare(); err != nil {
				t.Fatal(err)
			}
			tc.change(t, path)
			before := listing(t, path)
			if _, err := Open(openDir(t, path, nil), at(start)); err == nil || !strings.Contains(err.Error(), tc.want) || fault.HintOf(err) == "" {
				t.Errorf("%v (hint %q), want %q", err, fault.HintOf(err), tc.want)
			}
			if after := listing(t, path); after != before {
				t.Errorf("a refused directory was changed:\n%s\n%s", before, after)
			}
		})
	}
}

func remove(t *testing.T, path, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(path, name)); err != nil {
		t.Fatal(err)
	}
}

func removeUnits(t *testing.T, path string) {
	t.Helper()
	units, err := filepath.Glob(filepath.Join(path, "authority*.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for _, unit := range units {
		remove(t, path, filepath.Base(unit))
	}
}

func replace(t *testing.T, path, from, to string) {
	t.Helper()
	file := filepath.Join(path, recordName)
	data, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(data, []byte(from)) {
		t.Fatal(string(data), err)
	}
	write(t, file, bytes.Replace(data, []byte(from), []byte(to), 1))
}

func listing(t *testing.T, path string) string {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(path, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %x\n", e.Name(), sha256.Sum256(data))
	}
	return b.String()
}

// TestRollUnderWay rolls while others ask for everything that an authority gives.
func TestRollUnderWay(t *testing.T) {
	c := newCA(t)
	origin := c.Pool()
	server, err := c.NewServerCertificate([]string{"platform.example"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				cert, err := server.GetCertificate(nil)
				if err == nil {
					err = verifies(cert.Certificate, start, origin)
				}
				if err == nil {
					err = signsFor(t, c, start, origin)
				}
				if err == nil {
					err = goodClient(issued(t, c), c.ClientPool(), start)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 3 {
		old := c.Authorities()[len(c.Authorities())-1].ID
		if _, err := c.Prepare(); err != nil {
			t.Error(err)
		}
		if _, err := c.Activate(); err != nil {
			t.Error(err)
		}
		if err := c.Retire(old); err != nil {
			t.Error(err)
		}
	}
	close(done)
	wg.Wait()
}

func FuzzRecord(f *testing.F) {
	path := f.TempDir()
	dir, err := durable.OpenDir(path, nil)
	if err != nil {
		f.Fatal(err)
	}
	defer dir.Close()
	c, err := Open(dir, at(start))
	if err != nil {
		f.Fatal(err)
	}
	if _, err := c.Prepare(); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(path, recordName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":1,"authorities":[{"id":"","state":"active","unit":"../x"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(filepath.Join(path, recordName), data, 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := readAuthorities(dir, start)
		if err != nil {
			return
		}
		if v, err := newView(list); err == nil && v.active.key == nil {
			t.Error("an active authority without a key")
		}
	})
}
