package tpmkey

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/powernode/powernode-agent/internal/fault"
)

// sample is a well formed key of no TPM: the generator of P-256 as its point.
func sample(t testing.TB, alter func(*tpm2.TPMTPublic)) material {
	t.Helper()
	x := unhex(t, "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296")
	y := unhex(t, "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")
	public := template()
	public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: x}, Y: tpm2.TPM2BECCParameter{Buffer: y}})
	if alter != nil {
		alter(&public)
	}
	return material{public: tpm2.Marshal(tpm2.New2B(public)), private: append([]byte{0, 126}, bytes.Repeat([]byte{7}, 126)...)}
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func point(x, y []byte) func(*tpm2.TPMTPublic) {
	return func(p *tpm2.TPMTPublic) {
		p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: x}, Y: tpm2.TPM2BECCParameter{Buffer: y}})
	}
}

// asPEM encodes a key file that is wrong in one thing.
func asPEM(t testing.TB, alter func(*keyFile)) []byte {
	t.Helper()
	m := sample(t, nil)
	f := keyFile{Type: loadableKey, EmptyAuth: true, Parent: int64(tpm2.TPMRHOwner), Public: m.public, Private: m.private}
	alter(&f)
	der, err := asn1.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
}

func TestLoadIsStrict(t *testing.T) {
	good, err := sample(t, nil).encode()
	if err != nil {
		t.Fatal(err)
	}
	k, err := Load("", good)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(k.PEM(), good) {
		t.Errorf("it is written as\n%s", k.PEM())
	}
	public := func(alter func(*tpm2.TPMTPublic)) []byte {
		t.Helper()
		text, err := sample(t, alter).encode()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	attributes := func(alter func(*tpm2.TPMAObject)) []byte {
		t.Helper()
		return public(func(p *tpm2.TPMTPublic) { alter(&p.ObjectAttributes) })
	}
	short := make([]byte, 31)
	for name, c := range map[string]struct {
		text  []byte
		words string
	}{
		"nothing":                {nil, "one PEM block"},
		"no PEM":                 {[]byte("key"), "one PEM block"},
		"another PEM":            {bytes.ReplaceAll(good, []byte("TSS2 "), nil), "TSS2 PRIVATE KEY"},
		"two":                    {append(bytes.Clone(good), good...), "one PEM block"},
		"text behind it":         {append(bytes.Clone(good), 'x'), "one PEM block"},
		"with headers":           {bytes.Replace(good, []byte("KEY-----\n"), []byte("KEY-----\nA: b\n\n"), 1), "one PEM block"},
		"huge":                   {append(bytes.Clone(good), bytes.Repeat([]byte("\n"), MaxPEM)...), "longer than"},
		"no ASN.1":               {pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: []byte("x")}), "ASN.1"},
		"an importable key":      {asPEM(t, func(f *keyFile) { f.Type = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 4} }), "loadable"},
		"with a password":        {asPEM(t, func(f *keyFile) { f.EmptyAuth = false }), "without a password"},
		"of another hierarchy":   {asPEM(t, func(f *keyFile) { f.Parent = int64(tpm2.TPMRHEndorsement) }), "storage root key"},
		"of a stored parent":     {asPEM(t, func(f *keyFile) { f.Parent = 0x81000001 }), "storage root key"},
		"no private area":        {asPEM(t, func(f *keyFile) { f.Private = nil }), "private area"},
		"an empty private area":  {asPEM(t, func(f *keyFile) { f.Private = []byte{0, 0} }), "private area"},
		"a cut private area":     {asPEM(t, func(f *keyFile) { f.Private = f.Private[:20] }), "private area"},
		"no public area":         {asPEM(t, func(f *keyFile) { f.Public = nil }), "public area"},
		"a cut public area":      {asPEM(t, func(f *keyFile) { f.Public = f.Public[:20] }), "public area"},
		"may leave the TPM":      {attributes(func(a *tpm2.TPMAObject) { a.FixedTPM = false }), "can't give away"},
		"may get another parent": {attributes(func(a *tpm2.TPMAObject) { a.FixedParent = false }), "can't give away"},
		"made outside":           {attributes(func(a *tpm2.TPMAObject) { a.SensitiveDataOrigin = false }), "can't give away"},
		"decrypts":               {attributes(func(a *tpm2.TPMAObject) { a.Decrypt = true }), "ECDSA"},
		"on another curve": {public(func(p *tpm2.TPMTPublic) {
			p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP384})
		}), "P-256"},
		"a point off the curve":   {public(point(bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32))), "isn't on P-256"},
		"no point":                {public(point(nil, nil)), "isn't on P-256"},
		"a coordinate too long":   {public(point(make([]byte, 33), short)), "malformed"},
		"zeros, and left out one": {public(point(short, make([]byte, 32))), "isn't on P-256"},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := Load("", c.text)
			if k != nil || fault.KindOf(err) != fault.Broken || fault.HintOf(err) == "" || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v, %v: want %q", k, err, c.words)
			}
		})
	}
}

// TestShortCoordinates: TPMs of before 2018 leave leading zeros out.
func TestShortCoordinates(t *testing.T) {
	c, rest, ok := coordinate([]byte{0, 2, 3, 4, 9})
	if !ok || c[30] != 3 || c[31] != 4 || c[0] != 0 || !bytes.Equal(rest, []byte{9}) {
		t.Errorf("%v %v %v", c, rest, ok)
	}
	for _, b := range [][]byte{nil, {0}, {0, 1}, {0, 33}, {255, 255, 1}} {
		if _, _, ok := coordinate(b); ok {
			t.Errorf("%v is taken", b)
		}
	}
}

func FuzzLoad(f *testing.F) {
	good, err := sample(f, nil).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(asPEM(f, func(k *keyFile) { k.EmptyAuth = false }))
	f.Add(asPEM(f, func(k *keyFile) { k.Private = k.Private[:9] }))
	f.Add(asPEM(f, func(k *keyFile) { k.Public = append([]byte{0, 2}, 1, 2) }))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := Load("", text)
		if err != nil {
			return
		}
		again, err := Load("", k.PEM())
		if err != nil || !again.public.Equal(k.Public()) || !bytes.Equal(again.PEM(), k.PEM()) {
			t.Errorf("%q is read, and what it is written as isn't: %v", text, err)
		}
	})
}

// FuzzDER goes past the armour.
func FuzzDER(f *testing.F) {
	der, err := sample(f, nil).der()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add(der[:len(der)/2])
	f.Fuzz(func(t *testing.T, der []byte) {
		if k, err := Load("", pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})); err == nil && k.public == nil {
			t.Error("a key without a public part")
		}
	})
}
