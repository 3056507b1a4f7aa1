package enroll

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// chip is a TPM: it makes keys, and gives none out.
type chip struct {
	absent bool
	fail   error
	keys   map[string]*ecdsa.PrivateKey
}

func newChip() *chip { return &chip{keys: map[string]*ecdsa.PrivateKey{}} }

func (c *chip) Present() bool { return !c.absent }

func (c *chip) Create(context.Context) (crypto.Signer, []byte, error) {
	if c.fail != nil {
		return nil, nil, c.fail
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	name := "key " + rand.Text()
	c.keys[name] = key
	return key, []byte(name), nil
}

// others are the keys of every chip: their public parts stand in their texts.
var others = newChip()

func (c *chip) Load(text []byte) (crypto.Signer, error) {
	if key, ok := c.keys[string(text)]; ok {
		return key, nil
	}
	if key, ok := others.keys[string(text)]; ok {
		return key, nil
	}
	return nil, errors.New("it isn't a key")
}

func (c *chip) Check(_ context.Context, key crypto.Signer) error {
	for _, own := range c.keys {
		if own == key {
			return c.fail
		}
	}
	return fault.New(fault.Refuse, fault.General, "", "another TPM made it")
}

// TestKeyInATPM is a certificate's life with a key that never leaves its chip.
func TestKeyInATPM(t *testing.T) {
	p := newPlatform(t)
	p.policy = nodeapi.RenewIssued
	tpm := newChip()
	o := p.options(t.TempDir())
	o.TPM, o.KeyKind = tpm, TPMKey
	c, _, err := Ensure(t.Context(), o)
	if err != nil || c.KeyKind() != TPMKey {
		t.Fatalf("%v", err)
	}
	if text := readDir(t, o.Dir); strings.Contains(text, "PRIVATE KEY") || !strings.Contains(text, "tpm_key") {
		t.Errorf("on the disk:\n%s", text)
	}
	s := &service{t: t, p: p, dir: o.Dir}
	s.restart(Options{TPM: tpm})
	s.ok(s.beat())
	s.ok(s.keeper.Rotate(t.Context()))
	s.ok(s.beat())
	s.ok(s.keeper.Renew(t.Context()))
	s.ok(s.beat())
	if got := s.status(); got.Key != TPMKey || s.last() == c.Serial() || len(tpm.keys) != 3 {
		t.Errorf("%+v, %d keys", got, len(tpm.keys))
	}
	// The trust policy takes keys out of the TPM again.
	s.restart(Options{TPM: tpm, KeyKind: FileKey})
	s.ok(s.keeper.Rotate(t.Context()))
	s.ok(s.beat())
	if got := s.status(); got.Key != FileKey {
		t.Errorf("%+v", got)
	}
}

// TestKeyAway is a disk without its TPM.
func TestKeyAway(t *testing.T) {
	p := newPlatform(t)
	own := newChip()
	o := p.options(t.TempDir())
	o.TPM, o.KeyKind = own, TPMKey
	if _, _, err := Ensure(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	others = own
	before := readDir(t, o.Dir)
	for name, tpm := range map[string]*chip{
		"another TPM":         newChip(),
		"a TPM in a bad mood": {keys: own.keys, fail: fault.New(fault.Retry, fault.General, "", "busy")},
	} {
		t.Run(name, func(t *testing.T) {
			o := o
			o.TPM, o.Discover = tpm, nil
			_, was, err := Ensure(t.Context(), o)
			if was != KeyAway || err == nil || fault.HintOf(err) == "" || readDir(t, o.Dir) != before {
				t.Errorf("%v, %v", was, err)
			}
			s, err := inspectAt(o.Dir, Wish{}, time.Now(), keyring{tpm})
			if err != nil || s.Situation != KeyAway || s.Credentials == nil || s.Status().Serial == "" {
				t.Errorf("%+v, %v", s, err)
			}
			k := NewKeeper(Options{Dir: o.Dir, TPM: tpm})
			if _, err := k.Material(); err == nil {
				t.Error("a keeper connects without a key")
			}
			tpm.fail = nil
			tpm.keys = own.keys
			if _, err := k.Material(); err != nil {
				t.Errorf("the key is back: %v", err)
			}
		})
	}
}

func TestKeyKinds(t *testing.T) {
	full, bad := newChip(), newChip()
	bad.fail = errors.New("the hierarchy has a password")
	for _, c := range []struct {
		name string
		kind KeyKind
		tpm  *chip
		want KeyKind
		err  string
	}{
		{"unsaid", "", full, FileKey, ""},
		{"file", FileKey, full, FileKey, ""},
		{"tpm", TPMKey, full, TPMKey, ""},
		{"tpm, and there is none", TPMKey, &chip{absent: true}, "", "this machine shows none"},
		{"tpm that fails", TPMKey, bad, "", "the hierarchy has a password"},
		{"if present", TPMKeyIfPresent, full, TPMKey, ""},
		{"if present, and it isn't", TPMKeyIfPresent, &chip{absent: true}, FileKey, ""},
		{"if present, and it fails", TPMKeyIfPresent, bad, FileKey, ""},
		{"odd", "usb", full, "", "kind of key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlatform(t)
			o := p.options(t.TempDir())
			o.TPM, o.KeyKind = c.tpm, c.kind
			got, _, err := Ensure(t.Context(), o)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || len(p.requests) != 0 {
					t.Errorf("%v, %d requests", err, len(p.requests))
				}
				return
			}
			if err != nil || got.KeyKind() != c.want {
				t.Errorf("%v", err)
			}
		})
	}
}
