package signing

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/oracle"
)

func generate(t testing.TB) *Key {
	t.Helper()
	key, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestKeyFileRoundTrip(t *testing.T) {
	key := generate(t)
	for _, password := range []string{"", "correct horse"} {
		sealed, err := key.Seal([]byte(password))
		if err != nil {
			t.Fatal(err)
		}
		back, err := OpenKey(sealed, []byte(password))
		if err != nil {
			t.Fatal(err)
		}
		if back.ID() != key.ID() || !bytes.Equal(back.PublicPEM(), key.PublicPEM()) || !back.private.Equal(key.private) {
			t.Errorf("password %q: another key came back", password)
		}
		_, err = OpenKey(sealed, []byte(password+"x"))
		wantRefused(t, err, "password is wrong")
	}
}

// TestCosignsKeyFile opens a key that the real program made, and has it use one of ours.
func TestCosignsKeyFile(t *testing.T) {
	for _, tool := range []string{"cosign2", "cosign3"} {
		t.Run(tool, func(t *testing.T) {
			dir := t.TempDir()
			run := func(args ...string) []byte {
				t.Helper()
				cmd := exec.Command(oracle.Path(t, tool), args...)
				cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "COSIGN_PASSWORD=secret"}
				out, err := cmd.Output()
				if exit, ok := errors.AsType[*exec.ExitError](err); ok {
					t.Fatalf("%v: %s", err, exit.Stderr)
				}
				return out
			}
			run("generate-key-pair")
			file, err := os.ReadFile(filepath.Join(dir, "cosign.key"))
			if err != nil {
				t.Fatal(err)
			}
			key, err := OpenKey(file, []byte("secret"))
			if err != nil {
				t.Fatal(err)
			}
			if public, err := os.ReadFile(filepath.Join(dir, "cosign.pub")); err != nil || !bytes.Equal(public, key.PublicPEM()) {
				t.Errorf("public key %s, want %s (%v)", key.PublicPEM(), public, err)
			}
			ours := generate(t)
			sealed, err := ours.Seal([]byte("secret"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "ours.key"), sealed, 0o600); err != nil {
				t.Fatal(err)
			}
			if public := run("public-key", "--key", "ours.key"); !bytes.Equal(bytes.TrimSpace(public), bytes.TrimSpace(ours.PublicPEM())) {
				t.Errorf("cosign reads %s, want %s", public, ours.PublicPEM())
			}
		})
	}
}

func TestOpenKeyRefuses(t *testing.T) {
	key := generate(t)
	good, err := key.Seal(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(good)
	reseal := func(old, is string) []byte {
		text := bytes.Replace(block.Bytes, []byte(old), []byte(is), 1)
		if bytes.Equal(text, block.Bytes) {
			t.Fatalf("%q isn't in the document", old)
		}
		return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: text})
	}
	plain, err := x509.MarshalPKCS8PrivateKey(key.private)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file  []byte
		words string
	}{
		"nothing":              {nil, "no PEM block"},
		"the public key":       {key.PublicPEM(), "holds a public key"},
		"a bare private key":   {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: plain}), `type "PRIVATE KEY"`},
		"two keys":             {append(bytes.Clone(good), good...), "follows"},
		"too large":            {make([]byte, KeyFileMax+1), "larger than"},
		"not JSON":             {pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: []byte("x")}), "invalid character"},
		"another cipher":       {reseal(cipherName, "none"), "isn't known"},
		"another derivation":   {reseal(kdfName, "md5"), "isn't known"},
		"a work factor of 64G": {reseal("65536", "67108864"), "scrypt parameters"},
		"a work factor of 1":   {reseal("65536", "2"), "scrypt parameters"},
		"another block size":   {reseal(`"r":8`, `"r":1000000`), "scrypt parameters"},
		"a short nonce":        {reseal(`"nonce":"`, `"nonce":"AAAA","x":"`), "wrong length"},
		"a changed byte":       {reseal(`"ciphertext":"`, `"ciphertext":"AAAA`), "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := OpenKey(c.file, nil)
			wantRefused(t, err, c.words)
		})
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewKey(p384)
	wantRefused(t, err, "not an ECDSA key on P-256")
}

// TestOlderPEMType: keys from before cosign 2.0 have another PEM type and nothing else different.
func TestOlderPEMType(t *testing.T) {
	key := generate(t)
	sealed, err := key.Seal(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKey(bytes.ReplaceAll(sealed, []byte(pemSealed), []byte(pemSealedOld)), nil); err != nil {
		t.Error(err)
	}
}

func wantRefused(t *testing.T, err error, words string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), words) {
		t.Fatalf("error %v, want %q", err, words)
	}
	if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Input || fault.HintOf(err) == "" {
		t.Errorf("kind %v, area %v, hint %q", fault.KindOf(err), fault.AreaOf(err), fault.HintOf(err))
	}
}

// TestSecretsDontPrint: a key in a log line or an error shows its ID only.
func TestSecretsDontPrint(t *testing.T) {
	key := generate(t)
	for _, text := range []string{fmt.Sprint(key), fmt.Sprintf("%v %+v %#v %s", key, key, key, key)} {
		if !strings.Contains(text, key.ID()) || strings.Contains(text, "D:") || strings.Contains(text, key.private.D.String()) { //nolint:staticcheck // D is what must not show
			t.Errorf("prints %s", text)
		}
	}
}

func TestSignManifest(t *testing.T) {
	key := generate(t)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("manifest")))
	image := Image{Digest: digest, Repository: "registry.test:5000/modules/nginx"}
	s, err := SignManifest(key, image)
	if err != nil {
		t.Fatal(err)
	}
	again, err := SignManifest(key, image)
	if err != nil || !bytes.Equal(s.Bundle, again.Bundle) || !bytes.Equal(s.Payload, again.Payload) || s.Signature != again.Signature {
		t.Errorf("signing again gives other bytes (%v)", err)
	}
	want := `{"critical":{"identity":{"docker-reference":"registry.test:5000/modules/nginx"},"image":{"docker-manifest-digest":"` + digest +
		`"},"type":"cosign container image signature"},"optional":null}`
	if string(s.Payload) != want {
		t.Errorf("payload %s\nwant    %s", s.Payload, want)
	}
	verify := func(message, sig []byte) {
		t.Helper()
		sum := sha256.Sum256(message)
		if !ecdsa.VerifyASN1(&key.private.PublicKey, sum[:], sig) {
			t.Errorf("the signature of %q doesn't verify", message)
		}
	}
	sig, err := base64.StdEncoding.DecodeString(s.Signature)
	if err != nil {
		t.Fatal(err)
	}
	verify(s.Payload, sig)
	var doc bundleDoc
	if err := json.Unmarshal(s.Bundle, &doc); err != nil {
		t.Fatal(err)
	}
	statement := doc.DSSEEnvelope.Payload
	verify([]byte(fmt.Sprintf("DSSEv1 28 application/vnd.in-toto+json %d %s", len(statement), statement)), doc.DSSEEnvelope.Signatures[0].Sig)
	if doc.MediaType != BundleMediaType || doc.VerificationMaterial.PublicKey.Hint != key.ID() || !strings.Contains(string(statement), digest[7:]) {
		t.Errorf("bundle %s", s.Bundle)
	}
	for _, bad := range []Image{
		{Repository: "a/b"},
		{Digest: "sha256:00", Repository: "a/b"},
		{Digest: strings.ToUpper(digest), Repository: "a/b"},
		{Digest: "sha512:" + digest[7:], Repository: "a/b"},
		{Digest: digest},
		{Digest: digest, Repository: "a/b@" + digest},
	} {
		_, err := SignManifest(key, bad)
		wantRefused(t, err, "is not valid")
	}
}

func TestPasswordSources(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	env := func(pairs ...string) func(string) (string, bool) {
		return func(name string) (string, bool) {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1], true
				}
			}
			return "", false
		}
	}
	answers := func(all ...string) func(string) ([]byte, error) {
		return func(string) ([]byte, error) {
			if len(all) == 0 {
				return nil, errors.New("asked once too often")
			}
			answer := all[0]
			all = all[1:]
			return []byte(answer), nil
		}
	}
	for name, c := range map[string]struct {
		source  PasswordSource
		confirm bool
		want    string
	}{
		"a file":                    {PasswordSource{File: file("a", "one\ntwo\n"), LookupEnv: env(EnvPassword, "env")}, true, "one"},
		"a file without a line end": {PasswordSource{File: file("b", "one")}, true, "one"},
		"a file from Windows":       {PasswordSource{File: file("c", "one\r\n")}, true, "one"},
		"an empty file":             {PasswordSource{File: file("d", "")}, true, ""},
		"our variable":              {PasswordSource{LookupEnv: env(EnvPasswordCosign, "theirs", EnvPassword, "ours"), Prompt: answers()}, true, "ours"},
		"cosign's variable":         {PasswordSource{LookupEnv: env(EnvPasswordCosign, "theirs")}, true, "theirs"},
		"an empty variable":         {PasswordSource{LookupEnv: env(EnvPassword, ""), Prompt: answers()}, true, ""},
		"a person":                  {PasswordSource{LookupEnv: env(), Prompt: answers("x")}, false, "x"},
		"a person, twice":           {PasswordSource{Prompt: answers("x", "x")}, true, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := c.source.Read(c.confirm); err != nil || string(got) != c.want {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
	for name, c := range map[string]struct {
		source PasswordSource
		words  string
	}{
		"nowhere":         {PasswordSource{LookupEnv: env()}, "no terminal"},
		"no file":         {PasswordSource{File: filepath.Join(dir, "gone")}, "gone"},
		"a folder":        {PasswordSource{File: dir}, "directory"},
		"a huge line":     {PasswordSource{File: file("huge", strings.Repeat("x", passwordMax+1))}, "longer than"},
		"two that differ": {PasswordSource{Prompt: answers("x", "y")}, "differ"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.source.Read(true)
			wantRefused(t, err, c.words)
		})
	}
	if f, err := os.Open(file("e", "")); err != nil || TerminalPrompt(f, os.Stderr) != nil || TerminalPrompt(nil, os.Stderr) != nil {
		t.Error("a file was taken for a terminal")
	}
}

// FuzzKeyFile: whatever the file, no panic, and no work factor of the file's own choice.
func FuzzKeyFile(f *testing.F) {
	sealed, err := generate(f).Seal(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add([]byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\ne30=\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		doc, err := parseSealed(file)
		if err == nil && (doc.KDF.Params.N > 1<<17 || doc.KDF.Params.R*doc.KDF.Params.P != 8 || len(doc.Cipher.Nonce) != nonceSize) {
			t.Errorf("accepted %+v", doc)
		}
	})
}

func BenchmarkSignManifest(b *testing.B) {
	key := generate(b)
	image := Image{Digest: "sha256:" + strings.Repeat("0", 64), Repository: "a/b"}
	for b.Loop() {
		if _, err := SignManifest(key, image); err != nil {
			b.Fatal(err)
		}
	}
}
