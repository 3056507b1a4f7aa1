package signature

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

// FuzzPolicy: whatever the text, no panic; and a policy that is read denies what it doesn't name.
func FuzzPolicy(f *testing.F) {
	key, in := newSigner(f), newInstance(f)
	trusted := in.trustedRoot(f)
	f.Add(keyPolicy(string(key.PublicPEM())))
	f.Add(keylessPolicy)
	f.Add("schema_version: 1\nrules: [{name: a, images: ['**'], keys: [{file: key.pub, not_after: 2026-01-01T00:00:00Z}]}]\n")
	f.Add("a: &a [*a]")
	f.Add(strings.Repeat("[", 2000))
	files := fstest.MapFS{"key.pub": {Data: key.PublicPEM()}, "trusted_root.json": {Data: trusted}}
	image := imageOf("nginx", "1")
	forged := []Bundle{dsseBundle(key.ID(), statementFor(image.ManifestDigest), []byte("not a signature"))}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := LoadPolicy([]byte(text), files)
		if err != nil {
			return
		}
		if len(p.rules) == 0 || !p.integrity.known() {
			t.Fatalf("a policy that trusts nobody or has no level was read: %q", text)
		}
		for _, r := range p.rules {
			if len(r.images) == 0 || len(r.keys)+len(r.identities) == 0 || len(r.identities) > 0 && r.trusted == nil {
				t.Fatalf("an empty rule was read: %q", text)
			}
		}
		v, err := NewVerifier(p, Options{})
		fatal(t, err)
		if account, err := v.VerifyManifest(image, forged); err == nil {
			t.Fatalf("%+v accepted a forged signature under %q", account, text)
		}
	})
}

// FuzzBundle: whatever hangs on an image, no panic; nothing but the good signature's own bytes is
// accepted; and what is kept reads back as it was.
func FuzzBundle(f *testing.F) {
	key, in := newSigner(f), newInstance(f)
	image := imageOf("nginx", "1.28.0")
	keyed := verifierFor(f, keyPolicy(string(key.PublicPEM())), nil, Options{})
	keyless := verifierFor(f, keylessPolicy, in.trustedRoot(f), Options{})
	statement, claim := statementFor(image.ManifestDigest), payloadFor(image)
	good := signImage(f, key, image)
	seeds := append(good,
		attach(f, in.sign(f, how{stamp: true}, statement, true)),
		attach(f, in.sign(f, how{}, image.Manifest, false)),
		older(f, in.sign(f, how{stamp: true}, claim, false), claim),
		messageBundle(key.ID(), image.Manifest, key.sign(f, image.Manifest)),
	)
	for _, b := range seeds {
		f.Add(b.MediaType, b.Data, b.Annotations[annotationSignature], b.Annotations[annotationCertificate], b.Annotations[annotationRekor], b.Annotations[annotationTimestamp])
	}
	f.Fuzz(func(t *testing.T, mediaType string, data []byte, sig, certificate, rekor, stamp string) {
		b := Bundle{MediaType: mediaType, Data: data, Annotations: map[string]string{}}
		for name, value := range map[string]string{annotationSignature: sig, annotationCertificate: certificate, annotationRekor: rekor, annotationTimestamp: stamp} {
			if value != "" {
				b.Annotations[name] = value
			}
		}
		for _, v := range []*Verifier{keyed, keyless} {
			account, err := v.VerifyManifest(image, []Bundle{b})
			if err != nil {
				if account != nil || strings.Contains(err.Error(), "makes the signature library fail") {
					t.Fatalf("%+v: %v", account, err)
				}
				continue
			}
			if account.Rule != "site" || len(account.Checks) < len(keyChecks)+len(manifestChecks) {
				t.Fatalf("an incomplete account: %+v", account)
			}
		}
		raw, err := b.Encode()
		fatal(t, err)
		back := DecodeBundle(raw)
		again, err := back.Encode()
		fatal(t, err)
		if twice := DecodeBundle(again); back.MediaType != "" && !reflect.DeepEqual(twice, back) {
			t.Fatalf("%+v reads back as %+v", back, twice)
		}
	})
}

// FuzzSimpleSigning: what the parser of the older form's document accepts is what a plain reading
// of it says.
func FuzzSimpleSigning(f *testing.F) {
	image := imageOf("nginx", "1.28.0")
	f.Add(payloadFor(image))
	f.Add(payloadFor(image, `"optional":null`, `"optional":{"creator":"x","critical":{}}`))
	f.Add(payloadFor(image, `"type":`, `"Type":"x","type":`))
	f.Fuzz(func(t *testing.T, text []byte) {
		claim, err := parseSimpleSigning(text)
		if err != nil {
			return
		}
		var doc map[string]map[string]any
		var critical map[string]any
		if json.Unmarshal(text, &doc) == nil {
			for name, value := range doc {
				if strings.EqualFold(name, "critical") {
					critical = value
				}
			}
			for name := range critical {
				if !strings.EqualFold(name, "identity") && !strings.EqualFold(name, "image") && !strings.EqualFold(name, "type") {
					t.Fatalf("%q is critical and was not understood", name)
				}
			}
		}
		if !bytes.Contains(text, []byte("cosign container image signature")) && !bytes.Contains(text, []byte(`\u`)) {
			t.Fatalf("a claim of another type was read: %q as %+v", text, claim)
		}
	})
}

// FuzzStrictJSON: what passes has one reading: encoding/json keeps every key that is written.
func FuzzStrictJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":null}],"c":"d"}`))
	f.Add([]byte(`{"a":1,"A":2}`))
	f.Add([]byte(`[[[`))
	f.Add([]byte(`{} {}`))
	f.Add([]byte(`5e0550`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if checkJSON(text) != nil {
			return
		}
		var value any
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		if err := dec.Decode(&value); err != nil {
			t.Fatalf("%q passed, but %v", text, err)
		}
		if written := colons(text); keys(value) != written {
			t.Fatalf("%q has %d keys, and %d are read", text, written, keys(value))
		}
	})
}

// keys counts the keys of all objects in a JSON value.
func keys(value any) int {
	n := 0
	switch v := value.(type) {
	case map[string]any:
		for _, member := range v {
			n += 1 + keys(member)
		}
	case []any:
		for _, member := range v {
			n += keys(member)
		}
	}
	return n
}

// colons counts the colons outside strings, of which each key of JSON has one.
func colons(text []byte) int {
	n, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch {
		case inString && text[i] == '\\':
			i++
		case text[i] == '"':
			inString = !inString
		case text[i] == ':' && !inString:
			n++
		}
	}
	return n
}

// FuzzPattern: a pattern covers what the regular expression of the same meaning covers.
func FuzzPattern(f *testing.F) {
	for _, s := range [][2]string{{"a/**/z*", "a/b/zz"}, {"**", "a/b"}, {"a/*b*/c", "a/xby/c"}, {"**/**/x", "x/x/x"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		p, err := parseImagePattern(text)
		if err != nil || checkRepository(name) != nil {
			return
		}
		// "**" may be nothing, together with one of its slashes; on a name with a slash at the
		// end of each component that is a plain repetition.
		var expr strings.Builder
		for _, part := range p.parts {
			if part == "**" {
				expr.WriteString(`(?:[^/]+/)*`)
				continue
			}
			expr.WriteString(strings.ReplaceAll(regexp.QuoteMeta(part), `\*`, `[^/]*`) + "/")
		}
		want := regexp.MustCompile(`\A` + expr.String() + `\z`).MatchString(name + "/")
		if got := p.match(name); got != want {
			t.Fatalf("%q covers %q: %v, want %v", text, name, got, want)
		}
	})
}

func TestStrictJSON(t *testing.T) {
	for _, text := range []string{`null`, `{}`, `[]`, `{"a":{"b":1},"b":[{"a":1},{"a":2}]}`, ` {"a" : 1} `} {
		if err := checkJSON([]byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, words := range map[string]string{
		``: "unexpected EOF", `{`: "unexpected EOF", `{"a":`: "unexpected EOF", `{"a":1}x`: "follows", `{} {}`: "follows", `{a:1}`: "invalid",
		`{"a":1,"a":1}`: "twice", `{"a":1,"A":1}`: "twice", `[{"subject":1,"\u017fubject":1}]`: "twice", `{"k":1,"\u212a":1}`: "twice", "{\"s\":1,\"\u017f\":2}": "twice",
		strings.Repeat("[", 100) + strings.Repeat("]", 100): "deeper",
	} {
		if err := checkJSON([]byte(text)); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v, want %q", text, err, words)
		}
	}
}

func TestBundleEncoding(t *testing.T) {
	key := newSigner(t)
	v := verifierFor(t, keyPolicy(string(key.PublicPEM())), nil, Options{})
	for _, b := range signImage(t, key, imageOf("nginx", "1")) {
		raw, err := b.Encode()
		fatal(t, err)
		back := DecodeBundle(raw)
		if !reflect.DeepEqual(back, b) {
			t.Errorf("%+v reads back as %+v", b, back)
		}
	}
	extra := signImage(t, key, imageOf("nginx", "1"))[1]
	extra.Annotations["dev.sigstore.cosign/chain"] = "anything"
	raw, err := extra.Encode()
	fatal(t, err)
	if back := DecodeBundle(raw); len(back.Annotations) != 1 {
		t.Errorf("kept %v", back.Annotations)
	}
	good := signImage(t, key, imageOf("nginx", "1"))[0]
	for _, raw := range []string{"", "{", `{"mediaType":"text/plain"}`, `{"mediaType":"` + MediaTypePayload + `","data":1}`, strings.Repeat(" ", 4*BundleMax+1)} {
		b := DecodeBundle([]byte(raw))
		if b.MediaType != "" {
			t.Errorf("%.40q was read as %+v", raw, b)
		}
		// What is kept of rubbish must not spoil the good signature beside it.
		if _, err := v.VerifyManifest(imageOf("nginx", "1"), []Bundle{b, good}); err != nil {
			t.Error(err)
		}
	}
}

// TestRekorAnnotation: the older form's record of the log is read whole or refused.
func TestRekorAnnotation(t *testing.T) {
	body := base64.StdEncoding.EncodeToString([]byte(`{"kind":"hashedrekord","apiVersion":"0.0.1"}`))
	good := `{"SignedEntryTimestamp":"AAAA","Payload":{"body":"` + body + `","integratedTime":1,"logIndex":2,"logID":"ab"}}`
	if entry, err := parseRekor([]byte(good)); err != nil || entry.LogIndex != 2 || entry.KindVersion.Kind != "hashedrekord" {
		t.Errorf("%v, %v", entry, err)
	}
	for _, change := range [][2]string{{`"AAAA"`, `""`}, {`"ab"`, `"xy"`}, {body, ""}, {body, "AAAA"}, {`"logIndex":2`, `"logIndex":"2"`}, {`"logIndex":2`, `"logIndex":2,"logindex":3`}} {
		if entry, err := parseRekor([]byte(strings.Replace(good, change[0], change[1], 1))); err == nil {
			t.Errorf("%v: read as %v", change, entry)
		}
	}
	for name, b := range map[string]Bundle{
		"certificate": {Annotations: map[string]string{annotationCertificate: "x"}},
		"timestamp":   {Annotations: map[string]string{annotationTimestamp: "x"}},
		"log":         {Annotations: map[string]string{annotationRekor: "x"}},
	} {
		if m, err := b.material(); err == nil {
			t.Errorf("%s: %v", name, m)
		}
	}
}

func BenchmarkVerifyManifest(b *testing.B) {
	key, in := newSigner(b), newInstance(b)
	image := imageOf("nginx", "1.28.0")
	both := signImage(b, key, image)
	keyed := verifierFor(b, keyPolicy(string(key.PublicPEM())), nil, Options{})
	keyless := verifierFor(b, keylessPolicy, in.trustedRoot(b), Options{})
	claim := payloadFor(image)
	for _, c := range []struct {
		name    string
		v       *Verifier
		bundles []Bundle
	}{
		{"key", keyed, both[:1]},
		{"key-older-form", keyed, both[1:]},
		{"keyless", keyless, []Bundle{attach(b, in.sign(b, how{}, statementFor(image.ManifestDigest), true))}},
		{"keyless-timestamped", keyless, []Bundle{attach(b, in.sign(b, how{stamp: true}, statementFor(image.ManifestDigest), true))}},
		{"keyless-older-form", keyless, []Bundle{older(b, in.sign(b, how{}, claim, false), claim)}},
		{"refused-256-foreign", keyed, manyForeign(b, image)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				account, err := c.v.VerifyManifest(image, c.bundles)
				if (err == nil) != (account != nil) || (err != nil) != strings.HasPrefix(c.name, "refused") {
					b.Fatal(err)
				}
			}
		})
	}
}

// manyForeign are as many signatures as are looked at, all by one foreign key.
func manyForeign(b *testing.B, image Subject) []Bundle {
	one := signImage(b, newSigner(b), image)[0]
	out := make([]Bundle, BundlesMax)
	for i := range out {
		out[i] = one
	}
	return out
}

// BenchmarkLoadPolicy measures reading the policy, which each boot does once.
func BenchmarkLoadPolicy(b *testing.B) {
	text := []byte(keyPolicy(string(newSigner(b).PublicPEM())))
	for b.Loop() {
		if _, err := LoadPolicy(text, nil); err != nil {
			b.Fatal(err)
		}
	}
}
