package signature

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/signing"
)

func TestLoadPolicy(t *testing.T) {
	key, in := newSigner(t), newInstance(t)
	files := fstest.MapFS{
		"keys/release.pub":  {Data: key.PublicPEM()},
		"trusted_root.json": {Data: in.trustedRoot(t)},
	}
	p, err := LoadPolicy([]byte(`
schema_version: 1
integrity: enforced
rules:
  - name: site
    images: ["registry.test/powernode/*", "[::1]:5000/**"]
    modules: ["nginx*", system-base]
    keys:
      - file: keys/release.pub
        not_before: 2026-01-01T00:00:00Z
        not_after: 2027-01-01T00:00:00+01:00
    identities:
      - {issuer: "https://issuer.test", subject: "a@b.test"}
      - {issuer: "https://issuer.test", subject_regexp: ".*@b\\.test"}
    trusted_root: trusted_root.json
`), files)
	fatal(t, err)
	if p.Integrity() != LevelEnforced {
		t.Errorf("integrity %q", p.Integrity())
	}
	r := p.rules[0]
	if len(r.keys) != 1 || r.keys[0].name != "keys/release.pub" || r.keys[0].id != key.ID() || r.keys[0].notBefore.IsZero() || len(r.identities) != 2 || r.trusted == nil {
		t.Errorf("rule %+v", r)
	}
	for _, c := range []struct {
		repository, module string
		covered            bool
	}{
		{"registry.test/powernode/nginx", "nginx-site", true},
		{"registry.test/powernode/nginx", "system-base", true},
		{"registry.test/powernode/nginx", "system-base2", false},
		{"registry.test/powernode/a/nginx", "nginx", false},
		{"registry.test/powernode", "nginx", false},
		{"[::1]:5000/a/b/c", "nginx", true},
		{"[::1]:5000", "nginx", true},
		{"registry.testx/powernode/nginx", "nginx", false},
	} {
		if got := p.find(c.repository, c.module) != nil; got != c.covered {
			t.Errorf("%s, %s: covered %v", c.repository, c.module, got)
		}
	}
}

func TestIntegrityDefaultsToChecked(t *testing.T) {
	p, err := LoadPolicy([]byte(keyPolicy(string(newSigner(t).PublicPEM()))), nil)
	fatal(t, err)
	if p.Integrity() != LevelChecked || p.RecoveryShell() || p.EphemeralRoot() || p.NodeKey() != NodeKeyFile {
		t.Errorf("integrity %q, recovery shell %t, ephemeral root %t, node's key %q", p.Integrity(), p.RecoveryShell(), p.EphemeralRoot(), p.NodeKey())
	}
}

// TestWhatAPersonMayDo at the console, and what may outlive a boot, is asked for by name.
func TestWhatAPersonMayDo(t *testing.T) {
	good := keyPolicy(string(newSigner(t).PublicPEM()))
	p, err := LoadPolicy([]byte("recovery_shell: true\nephemeral_root: true\n"+good), nil)
	fatal(t, err)
	if !p.RecoveryShell() || !p.EphemeralRoot() {
		t.Errorf("recovery shell %t, ephemeral root %t", p.RecoveryShell(), p.EphemeralRoot())
	}
	for _, bad := range []string{"recovery_shell: 1\n", "recovery_shell: maybe\n", "recovery_shell: {}\n"} {
		if _, err := LoadPolicy([]byte(bad+good), nil); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestPrivilegedServices(t *testing.T) {
	good := keyPolicy(string(newSigner(t).PublicPEM()))
	p, err := LoadPolicy([]byte("allow_privileged_services: [docker, k3s]\n"+good), nil)
	fatal(t, err)
	if got := p.PrivilegedServices(); strings.Join(got, " ") != "docker k3s" {
		t.Errorf("%q", got)
	}
	if p, err = LoadPolicy([]byte(good), nil); err != nil || len(p.PrivilegedServices()) > 0 {
		t.Errorf("%v, %v", p, err)
	}
	for _, bad := range []string{"true", "\"*\"", "[\"*\"]", "[Docker]", "[\"\"]", "docker"} {
		if _, err := LoadPolicy([]byte("allow_privileged_services: "+bad+"\n"+good), nil); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

func TestNodeKey(t *testing.T) {
	good := keyPolicy(string(newSigner(t).PublicPEM()))
	for _, want := range []NodeKey{NodeKeyFile, NodeKeyTPM, NodeKeyTPMIfPresent} {
		p, err := LoadPolicy([]byte("node_key: "+string(want)+"\n"+good), nil)
		fatal(t, err)
		if p.NodeKey() != want {
			t.Errorf("%q is read as %q", want, p.NodeKey())
		}
	}
	for _, bad := range []string{"TPM", "tpm2", "tpm if present", "true", "[tpm]", "{}"} {
		if p, err := LoadPolicy([]byte("node_key: "+bad+"\n"+good), nil); err == nil {
			t.Errorf("%q is read as %q", bad, p.NodeKey())
		}
	}
}

func TestPolicyIsRefused(t *testing.T) {
	key, in := newSigner(t), newInstance(t)
	good := keyPolicy(string(key.PublicPEM()))
	private, err := key.Seal(nil)
	fatal(t, err)
	weak, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // weak on purpose
	fatal(t, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	fatal(t, err)
	files := fstest.MapFS{
		"root.json":    {Data: in.trustedRoot(t)},
		"no-ca.json":   {Data: in.trustedRoot(t, "ca")},
		"no-ct.json":   {Data: in.trustedRoot(t, "ct")},
		"no-log.json":  {Data: in.trustedRoot(t, "rekor")},
		"huge.json":    {Data: make([]byte, trustedRootMax+1)},
		"rubbish.json": {Data: []byte("{}")},
		"huge.pub":     {Data: make([]byte, keyFileMax+1)},
		"dir/x":        {Data: nil},
	}
	rule := func(body string) string {
		return "schema_version: 1\nrules:\n  - name: site\n    images: [\"**\"]\n" + body
	}
	identities := func(body, rest string) string { return rule("    identities:\n      - " + body + "\n" + rest) }
	const someone = `{issuer: "https://i", subject: "s"}`
	for name, c := range map[string]struct{ policy, words string }{
		"nothing":                    {"", "trusts nobody"},
		"a comment":                  {"# nothing\n", "trusts nobody"},
		"no rules":                   {"schema_version: 1\n", "no rules, so it trusts nobody"},
		"no schema version":          {strings.Replace(good, "schema_version: 1", "", 1), "schema_version is 0"},
		"another schema version":     {strings.Replace(good, "schema_version: 1", "schema_version: 2", 1), "schema_version is 2"},
		"not YAML":                   {"a: [", "it isn't YAML: line 1: did not find"},
		"a text":                     {"trust everybody", "line 1: there is the text `trust e...`, and it must be keys with values"},
		"a list":                     {"- a\n", "line 1: there is a list, and it must be keys with values"},
		"a rule that is a text":      {"schema_version: 1\nrules: [site]\n", "line 2: there is the text `site`, and it must be keys with values"},
		"rules that are a text":      {"schema_version: 1\nrules: site\n", "the text `site`, and it must be a list"},
		"a list for a name":          {"schema_version: 1\nrules: [{name: [x]}]\n", "there is a list, and it must be a text"},
		"a text for the version":     {"schema_version: one\n", "the text `one`, and it must be a whole number"},
		"a key unknown":              {good + "default: allow\n", "line 12: the key default isn't known"},
		"a key unknown in a rule":    {good + "    fallback: true\n", "the key fallback isn't known"},
		"a key twice":                {good + "    images: [\"**\"]\n", "already"},
		"two documents":              {good + "---\n" + good, "more than one document"},
		"an alias":                   {"schema_version: 1\nrules:\n  - &a {name: x}\n  - *a\n", "anchor"},
		"a merge key":                {"schema_version: 1\nrules:\n  - <<: {name: x}\n", "merge key"},
		"too large":                  {good + strings.Repeat("#", PolicyMax), "larger than"},
		"a level unknown":            {"integrity: none\n" + good, "enforced or checked"},
		"a place for the key":        {"node_key: usb\n" + good, "file, tpm or tpm-if-present"},
		"a level called unsafe":      {"integrity: unsafe\n" + good, "enforced or checked"},
		"too many rules":             {"schema_version: 1\nrules:\n" + strings.Repeat("  - {name: x}\n", rulesMax+1), "more than 64 rules"},
		"a rule without name":        {strings.Replace(good, "name: site", "name: ''", 1), "rule 1: its name"},
		"two rules of a name":        {good + strings.SplitN(good, "rules:\n", 2)[1], `two rules are named "site"`},
		"no images":                  {strings.Replace(good, `["registry.test:5000/modules/*"]`, "[]", 1), "names no images"},
		"an image without host":      {strings.Replace(good, "registry.test:5000/modules/*", "*", 1), "has no host"},
		"an image with a tag":        {strings.Replace(good, "modules/*", "modules/x:v1", 1), "tag or a digest"},
		"an image in upper case":     {strings.Replace(good, "modules/*", "Modules/*", 1), "lower case"},
		"** in a component":          {strings.Replace(good, "modules/*", "modules/a**", 1), "whole component"},
		"an empty component":         {strings.Replace(good, "modules/*", "modules//x", 1), "component"},
		"a question mark":            {strings.Replace(good, "modules/*", "modules/a?", 1), `character "?"`},
		"a module in upper case":     {good + "    modules: [Nginx]\n", "lower-case"},
		"an empty module":            {good + "    modules: ['']\n", "empty"},
		"nobody":                     {rule(""), "neither keys nor identities"},
		"a key without source":       {rule("    keys:\n      - name: x\n"), "either pem or file"},
		"a key with two sources":     {good + "        file: x.pub\n", "either pem or file"},
		"a key file missing":         {rule("    keys: [{file: gone.pub}]\n"), "gone.pub"},
		"a key file above":           {rule("    keys: [{file: ../x.pub}]\n"), "below the policy's directory"},
		"a key file absolute":        {rule("    keys: [{file: /etc/x.pub}]\n"), "below the policy's directory"},
		"a key file too large":       {rule("    keys: [{file: huge.pub}]\n"), "larger than"},
		"a key file that's a folder": {rule("    keys: [{file: dir}]\n"), "dir"},
		"not a key":                  {rule("    keys: [{pem: hello}]\n"), "no PEM block"},
		"a private key":              {rule("    keys:\n      - pem: " + indent(string(private))), "holds a private key"},
		"a certificate":              {rule("    keys:\n      - pem: " + indent(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE"})))), "not PUBLIC KEY"},
		"two keys in one":            {rule("    keys:\n      - pem: " + indent(string(key.PublicPEM())+string(key.PublicPEM()))), "one key each"},
		"the same key twice":         {rule("    keys:\n      - pem: " + indent(string(key.PublicPEM())) + "      - pem: " + indent(string(key.PublicPEM()))), "stands there twice"},
		"a weak key":                 {rule("    keys:\n      - pem: " + indent(publicPEM(t, weak.Public()))), "isn't supported"},
		"a curve unsupported":        {rule("    keys:\n      - pem: " + indent(publicPEM(t, p521.Public()))), "isn't supported"},
		"rubbish in PEM":             {rule("    keys:\n      - pem: " + indent(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})))), "doesn't parse"},
		"a day for a time":           {good + "        not_after: 2026-01-01\n", "not a time like"},
		"a window inside out":        {good + "        not_before: 2027-01-01T00:00:00Z\n        not_after: 2026-01-01T00:00:00Z\n", "isn't later"},
		"no trusted root":            {identities(someone, ""), "no trusted_root"},
		"a trusted root missing":     {identities(someone, "    trusted_root: gone.json\n"), "gone.json"},
		"a trusted root too large":   {identities(someone, "    trusted_root: huge.json\n"), "larger than"},
		"a trusted root of nothing":  {identities(someone, "    trusted_root: rubbish.json\n"), "media type"},
		"no certificate authority":   {identities(someone, "    trusted_root: no-ca.json\n"), "no certificate authority"},
		"no certificate log":         {identities(someone, "    trusted_root: no-ct.json\n"), "no certificate transparency log"},
		"no transparency log":        {identities(someone, "    trusted_root: no-log.json\n"), "no transparency log"},
		"no issuer":                  {identities(`{subject: "s"}`, "    trusted_root: root.json\n"), "names no issuer"},
		"no subject":                 {identities(`{issuer: "i"}`, "    trusted_root: root.json\n"), "either subject or subject_regexp"},
		"two subjects":               {identities(`{issuer: "i", subject: "s", subject_regexp: "s"}`, "    trusted_root: root.json\n"), "either subject or subject_regexp"},
		"a regexp that isn't one":    {identities(`{issuer: "i", subject_regexp: "a)|(?:b"}`, "    trusted_root: root.json\n"), "subject_regexp"},
		"a regexp too long":          {identities(`{issuer: "i", subject_regexp: "`+strings.Repeat("a", regexpMax+1)+`"}`, "    trusted_root: root.json\n"), "longer than"},
		"an issuer by regexp":        {identities(`{issuer_regexp: "i", subject: "s"}`, "    trusted_root: root.json\n"), "the key issuer_regexp isn't known"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := LoadPolicy([]byte(c.policy), files)
			if err == nil || p != nil {
				t.Fatalf("accepted: %+v", p)
			}
			if !strings.Contains(err.Error(), c.words) {
				t.Errorf("error %q\nlacks %q", err, c.words)
			}
			if strings.Contains(err.Error(), "signature.") || strings.Contains(err.Error(), "!!") {
				t.Errorf("error %q names Go's types or YAML's tags", err)
			}
			if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Verify || fault.HintOf(err) == "" {
				t.Errorf("kind %v, area %v, hint %q", fault.KindOf(err), fault.AreaOf(err), fault.HintOf(err))
			}
		})
	}
}

// TestPolicyFromARoot reads a policy as the agent does, and finds that no symlink leads out of its
// directory.
func TestPolicyFromARoot(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	key, err := signing.GenerateKey()
	fatal(t, err)
	fatal(t, os.WriteFile(filepath.Join(outside, "x.pub"), key.PublicPEM(), 0o600))
	fatal(t, os.WriteFile(filepath.Join(dir, "inside.pub"), key.PublicPEM(), 0o600))
	fatal(t, os.Symlink(filepath.Join(outside, "x.pub"), filepath.Join(dir, "x.pub")))
	root, err := os.OpenRoot(dir)
	fatal(t, err)
	defer root.Close()
	const rule = "schema_version: 1\nrules:\n  - name: site\n    images: [\"**\"]\n    keys: [{file: %}]\n"
	if _, err := LoadPolicy([]byte(strings.Replace(rule, "%", "inside.pub", 1)), root.FS()); err != nil {
		t.Error(err)
	}
	if _, err := LoadPolicy([]byte(strings.Replace(rule, "%", "x.pub", 1)), root.FS()); err == nil {
		t.Error("a symlink led out of the policy's directory")
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"**", "a/b", true},
		{"**/nginx", "a/b/nginx", true},
		{"**/nginx", "a/b/nginx2", false},
		{"a/**/z", "a/z", true},
		{"a/**/z", "a/b/c/z", true},
		{"a/**", "a/b", true},
		{"a/**", "ab/b", false},
		{"a/*", "a/b", true},
		{"a/*", "a/b/c", false},
		{"a/x*y*z", "a/xyz", true},
		{"a/x*y*z", "a/x1y2y3z", true},
		{"a/x*y*z", "a/x1y2", false},
		{"*.test/b", "r.test/b", true},
		{"*.test/b", "r.test.evil/b", false},
		{"a/b", "a/b", true},
		{"a/b", "a/bb", false},
	} {
		p, err := parseImagePattern(c.pattern)
		fatal(t, err)
		if got := p.match(c.name); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.name, got)
		}
	}
}

// TestPatternsTakeLinearTime: a pattern made to backtrack is matched at once.
func TestPatternsTakeLinearTime(t *testing.T) {
	p, err := parseImagePattern("a/" + strings.Repeat("a*", 200) + "b")
	fatal(t, err)
	if p.match("a/" + strings.Repeat("a", 400)) {
		t.Error("matched")
	}
	q, err := parseImagePattern(strings.Repeat("**/", 100) + "b")
	fatal(t, err)
	if q.match(strings.Repeat("a/", 200) + "c") {
		t.Error("matched")
	}
}
