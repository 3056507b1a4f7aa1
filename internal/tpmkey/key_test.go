package tpmkey

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/tpmkey/tpmtest"
)

// newTestKey makes a key in a TPM.
func newTestKey(t testing.TB, device string) *Key {
	t.Helper()
	k, err := Create(t.Context(), device)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// signs checks that k signs, by the standard library.
func signs(t testing.TB, k *Key, text string) {
	t.Helper()
	digest := sha256.Sum256([]byte(text))
	der, err := k.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if public, ok := k.Public().(*ecdsa.PublicKey); !ok || !ecdsa.VerifyASN1(public, digest[:], der) {
		t.Errorf("the signature doesn't verify by %T", k.Public())
	}
}

// refused checks a fault: its kind, one of its causes, and words of its text and hint.
func refused(t *testing.T, err error, kind fault.Kind, cause error, words ...string) {
	t.Helper()
	switch {
	case err == nil:
		t.Fatal("no error")
	case fault.KindOf(err) != kind:
		t.Errorf("kind %v, want %v: %v", fault.KindOf(err), kind, err)
	case cause != nil && !errors.Is(err, cause):
		t.Errorf("%v: its causes lack %v", err, cause)
	}
	hint := fault.HintOf(err)
	if hint == "" || strings.Contains(err.Error(), "\n") {
		t.Errorf("hint %q, error %q", hint, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error()+"; "+hint, w) {
			t.Errorf("%q; %q: it lacks %q", err, hint, w)
		}
	}
}

func TestKeyOutlivesAPowerCycle(t *testing.T) {
	tpm := tpmtest.New(t)
	made := newTestKey(t, tpm.Device)
	signs(t, made, "before")
	tpm.PowerCycle()
	signs(t, made, "after, the same object")
	loaded, err := Load(tpm.Device, made.PEM())
	if err != nil {
		t.Fatal(err)
	}
	if err := loaded.Check(t.Context()); err != nil {
		t.Error(err)
	}
	signs(t, loaded, "after, from its PEM")
	if !made.public.Equal(loaded.Public()) || !bytes.Equal(made.PEM(), loaded.PEM()) {
		t.Error("it came back as another key")
	}
	if other := newTestKey(t, tpm.Device); made.public.Equal(other.Public()) {
		t.Error("the next key is the same one")
	}
}

// TestNothingStaysLoaded counts the objects that a TPM without resource manager has room for.
func TestNothingStaysLoaded(t *testing.T) {
	tpm := tpmtest.New(t)
	free := tpm.Free()
	k := newTestKey(t, tpm.Device)
	for range 2 * free {
		signs(t, k, "x")
	}
	other := tpmtest.New(t)
	foreign, err := Load(tpm.Device, newTestKey(t, other.Device).PEM())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * free {
		if err := foreign.Check(t.Context()); !errors.Is(err, ErrForeign) {
			t.Fatal(err)
		}
	}
	if now := tpm.Free(); now != free {
		t.Errorf("room for %d objects, before it was %d", now, free)
	}
}

func TestTheKeyIsBoundToItsTPM(t *testing.T) {
	tpm := tpmtest.New(t)
	k := newTestKey(t, tpm.Device)
	digest := sha256.Sum256(nil)

	another, err := Load(tpmtest.New(t).Device, k.PEM())
	if err != nil {
		t.Fatal(err)
	}
	refused(t, another.Check(t.Context()), fault.Refuse, ErrForeign, "load the node's key", "another made it", "new token")
	_, err = another.Sign(rand.Reader, digest[:], crypto.SHA256)
	refused(t, err, fault.Refuse, ErrForeign, "sign with the node's key", "new token")

	tpm.Clear()
	refused(t, k.Check(t.Context()), fault.Refuse, ErrForeign, "cleared", "new token")
	signs(t, newTestKey(t, tpm.Device), "a new key in the cleared TPM")
}

func TestTheKeyCannotLeaveItsTPM(t *testing.T) {
	tpm := tpmtest.New(t)
	k := newTestKey(t, tpm.Device)
	tpm.Do(func(c transport.TPM) error {
		_, err := withKey(c, k.material, func(key tpm2.NamedHandle) (struct{}, error) {
			public, err := tpm2.ReadPublic{ObjectHandle: key.Handle}.Execute(c)
			if err != nil {
				return struct{}{}, err
			}
			area, err := public.OutPublic.Contents()
			if err != nil {
				return struct{}{}, err
			}
			if a := area.ObjectAttributes; !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || !a.NoDA || a.Decrypt {
				t.Errorf("attributes %+v", a)
			}
			if _, err := (tpm2.Duplicate{ObjectHandle: key, NewParentHandle: tpm2.TPMRHNull}).Execute(c); err == nil {
				t.Error("the TPM gives the key away")
			}
			return struct{}{}, nil
		})
		return err
	})
	if bytes.Contains(k.PEM(), []byte("BEGIN PRIVATE KEY")) {
		t.Error("the PEM is of a private key")
	}
}

// TestLockoutDoesNotConcernTheKey: others' wrong guesses lock the TPM for what has a password.
func TestLockoutDoesNotConcernTheKey(t *testing.T) {
	tpm := tpmtest.New(t)
	k := newTestKey(t, tpm.Device)
	tpm.Do(func(c transport.TPM) error {
		locked := false
		_, err := withParent(c, func(parent tpm2.NamedHandle) (struct{}, error) {
			guarded := template()
			guarded.ObjectAttributes.NoDA = false
			made, err := tpm2.Create{
				ParentHandle: parent, InPublic: tpm2.New2B(guarded),
				InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte("secret")}}},
			}.Execute(c)
			if err != nil {
				return struct{}{}, err
			}
			loaded, err := tpm2.Load{ParentHandle: parent, InPrivate: made.OutPrivate, InPublic: made.OutPublic}.Execute(c)
			if err != nil {
				return struct{}{}, err
			}
			for range 100 {
				_, err = tpm2.Sign{
					KeyHandle:  tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: tpm2.PasswordAuth([]byte("wrong"))},
					Digest:     tpm2.TPM2BDigest{Buffer: make([]byte, sha256.Size)},
					Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
				}.Execute(c)
				if errors.Is(err, tpm2.TPMRCLockout) {
					locked = true
					break
				}
			}
			return struct{}{}, flush(c, loaded.ObjectHandle)
		})
		if !locked {
			t.Error("the TPM didn't lock; the test shows nothing")
		}
		return err
	})
	signs(t, k, "while it is locked")
	signs(t, newTestKey(t, tpm.Device), "made while it is locked")
}

func TestOwnerWithAPassword(t *testing.T) {
	tpm := tpmtest.New(t)
	tpm.Do(func(c transport.TPM) error {
		_, err := tpm2.HierarchyChangeAuth{AuthHandle: tpm2.TPMRHOwner, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("mine")}}.Execute(c)
		return err
	})
	_, err := Create(t.Context(), tpm.Device)
	refused(t, err, fault.Refuse, nil, "owner hierarchy has a password", "tpm2_changeauth", "node_key: file")
}

func TestConcurrentSigning(t *testing.T) {
	tpm := tpmtest.New(t)
	a, b := newTestKey(t, tpm.Device), newTestKey(t, tpm.Device)
	free := tpm.Free()
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			k := a
			if i%2 == 1 {
				k = b
			}
			digest := sha256.Sum256([]byte{byte(i)})
			der, err := k.Sign(rand.Reader, digest[:], crypto.SHA256)
			if err != nil || !ecdsa.VerifyASN1(k.public, digest[:], der) {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	group.Wait()
	if now := tpm.Free(); now != free {
		t.Errorf("room for %d objects, before it was %d", now, free)
	}
}

func TestSignsSHA256Only(t *testing.T) {
	k := newTestKey(t, tpmtest.New(t).Device)
	long := sha512.Sum384(nil)
	for name, c := range map[string]struct {
		digest []byte
		opts   crypto.SignerOpts
	}{
		"no hash":         {long[:32], nil},
		"SHA-384":         {long[:], crypto.SHA384},
		"a short digest":  {long[:31], crypto.SHA256},
		"a message as is": {[]byte("text"), crypto.Hash(0)},
	} {
		if _, err := k.Sign(rand.Reader, c.digest, c.opts); fault.KindOf(err) != fault.Broken || !strings.Contains(err.Error(), "SHA-256 only") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNoTPM(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "tpm")
	_, err := Create(t.Context(), gone)
	refused(t, err, fault.Refuse, ErrAbsent, "this machine has no TPM", "node_key: file")

	tpm := tpmtest.New(t)
	if !Present(tpm.Device) || Present(gone) || Present(t.TempDir()) {
		t.Error("Present is wrong about a socket, nothing, or a directory")
	}
	k := newTestKey(t, tpm.Device)
	tpm.Off()
	refused(t, k.Check(t.Context()), fault.Refuse, ErrAbsent, "load the node's key")

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Create(ended, tpm.Device); !errors.Is(err, context.Canceled) && !errors.Is(err, ErrAbsent) {
		t.Error(err)
	}
}

// TestDamagedKey has the TPM refuse what Load can't see.
func TestDamagedKey(t *testing.T) {
	tpm := tpmtest.New(t)
	k := newTestKey(t, tpm.Device)
	block, _ := pem.Decode(k.PEM())
	block.Bytes[len(block.Bytes)-1] ^= 1
	damaged, err := Load(tpm.Device, pem.EncodeToMemory(block))
	if err != nil {
		t.Fatal(err)
	}
	refused(t, damaged.Check(t.Context()), fault.Refuse, ErrForeign)

	// Another key's public part.
	other := newTestKey(t, tpm.Device)
	mixed, err := newKey(tpm.Device, material{public: other.material.public, private: k.material.private}, other.public)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, mixed.Check(t.Context()), fault.Refuse, ErrForeign)
}

func BenchmarkSign(b *testing.B) {
	k := newTestKey(b, tpmtest.New(b).Device)
	digest := sha256.Sum256(nil)
	for b.Loop() {
		if _, err := k.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			b.Fatal(err)
		}
	}
}
