package signature

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mutations is the table of this package's checks: what takes each one out of the source, and the
// test that then fails. TestMutations proves the table when POWERNODE_MUTATE is set, which takes
// minutes; otherwise only that it still fits the source.
var mutations = []struct {
	file, source, mutant string
	test                 string // a test, or a test and its case
}{
	{"check.go", "if !slices.ContainsFunc(v.Checks, func(c Check) bool { return c.Name == name }) {", "if name == \"\" {", "TestIncompleteAccount"},
	{"verifier.go", "policy == nil || len(policy.rules) == 0", "policy == nil", "TestNoVerifierWithoutPolicy"},
	{"verifier.go", "!bytes.Equal(sum[:], want)", "!bytes.Equal(want, want)", "TestKeyedImageIsRefused/other bytes than the digest's"},
	{"verifier.go", "len(subject.Manifest) > ManifestMax", "false", "TestKeyedImageIsRefused/a huge manifest"},
	{"verifier.go", "if err := checkRepository(subject.Repository); err != nil {", "if err := error(nil); err != nil {", "TestKeyedImageIsRefused/a repository that isn't one"},
	{"verifier.go", "err := module.CheckName(subject.Name)", "var err error", "TestKeyedImageIsRefused/no name asked for"},
	{"verifier.go", "err = module.CheckVersion(subject.Version)", "err = nil", "TestKeyedImageIsRefused/no version asked for"},
	{"verifier.go", "len(bundles) > BundlesMax", "false", "TestKeyedImageIsRefused/too many signatures"},
	{"verifier.go", "if failure := checkReference(r, sig.payload); failure != nil {", "if failure := checkReference(r, sig.payload); failure != nil && false {", "TestKeyedImageIsRefused/a claim of another repository"},
	{"verifier.go", "name != subject.Name || ", "", "TestKeyedImageIsRefused/replayed under another name"},
	{"verifier.go", " || version != subject.Version", "", "TestKeyedImageIsRefused/replayed as another version"},
	{"manifest.go", `strings.Contains(doc.MediaType, "index")`, "false", "TestKeyedImageIsRefused/signed, but an index"},
	{"manifest.go", "!slices.Contains(manifestTypes, doc.MediaType)", "manifestTypes == nil || slices.Contains(manifestTypes, \"\")", "TestKeyedImageIsRefused/signed, but of another type"},
	{"manifest.go", "if err := module.CheckName(name); err != nil {", "if err := module.CheckName(name); err != nil && false {", "TestKeyedImageIsRefused/signed, but not a module"},
	{"manifest.go", "if err := module.CheckVersion(version); err != nil {", "if err := module.CheckVersion(version); err != nil && false {", "TestKeyedImageIsRefused/signed, without a version"},
	{"manifest.go", "if sig.payload.digest != digest {", "if false {", "TestKeyedImageIsRefused/signature of another image, older form"},
	{"manifest.go", "if err := checkStatement(envelope.GetPayload(), digest); err != nil {", "if err := checkStatement(envelope.GetPayload(), digest); err != nil && false {", "TestKeyedImageIsRefused/an attestation"},
	{"manifest.go", "doc.Type != statementV1 && doc.Type != statementV01", "false", "TestKeyedImageIsRefused/a statement of another type"},
	{"manifest.go", "doc.PredicateType != predicateSign", "false", "TestKeyedImageIsRefused/an attestation"},
	{"manifest.go", "len(doc.Subject) != 1 || ", "", "TestKeyedImageIsRefused/a statement about two images"},
	{"manifest.go", " || len(doc.Subject[0].Digest) != 1", "", "TestKeyedImageIsRefused/a statement with two digests"},
	{"manifest.go", `case "sha256:"+doc.Subject[0].Digest["sha256"] != digest:`, "case false:", "TestKeyedImageIsRefused/signature of another image"},
	{"manifest.go", "func checkStatement(text []byte, digest string) error {\n\tif err := checkJSON(text); err != nil {", "func checkStatement(text []byte, digest string) error {\n\tif err := error(nil); err != nil {", "TestKeyedImageIsRefused/a statement that says a thing twice"},
	{"manifest.go", "!bytes.Equal(claimed, sum[:])", "!bytes.Equal(sum[:], sum[:])", "TestKeyedImageIsRefused/signature of other bytes"},
	{"payload.go", "dec.DisallowUnknownFields()", "", "TestKeyedImageIsRefused/a claim with more that is critical"},
	{"payload.go", "doc.Critical.Type != payloadType", "false", "TestKeyedImageIsRefused/a claim of another type"},
	{"payload.go", "len(b.Annotations[name]) > BundleMax", "false", "TestKeyedImageIsRefused/a huge annotation"},
	{"payload.go", "err != nil || len(sig) == 0", "err != nil", "TestKeyedImageIsRefused/a claim without signature"},
	{"payload.go", "len(doc.SignedEntryTimestamp) == 0", "false", "TestRekorAnnotation"},
	{"bundle.go", "if len(b.Data) > BundleMax {", "if false {", "TestKeyedImageIsRefused/a huge bundle"},
	{"bundle.go", "if r := recover(); r != nil {", "if r := error(nil); r != nil {", "TestPanicIsARefusal"},
	{"strictjson.go", "if keys[folded] {", "if false {", "TestStrictJSON"},
	{"strictjson.go", "strings.Map(fold, name)", "strings.ToLower(string(fold('a')) + name)", "TestStrictJSON"},
	{"strictjson.go", "if depth > jsonDepthMax {", "if false {", "TestStrictJSON"},
	{"judge.go", "content.Certificate() != nil && len(d.identities) == 0", "false", "TestCertificateWhereKeysAreDemanded"},
	{"judge.go", "case len(d.keys) == 0:", "case false:", "TestCertificateWhereKeysAreDemanded"},
	{"judge.go", "\t\treturn nil, classify(err)\n", "\t\treturn &verify.VerificationResult{Signature: &verify.SignatureVerificationResult{}}, nil\n", "TestKeyedImageIsRefused/foreign key"},
	{"judge.go", "verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1)", "verify.WithObserverTimestamps(1)", "TestKeylessImageIsRefused/no log entry"},
	{"judge.go", "verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1)", "verify.WithTransparencyLog(1), verify.WithCurrentTime()", "TestKeylessImageIsRefused/no time"},
	{"judge.go", ", verify.WithSignedCertificateTimestamps(1)", "", "TestKeylessImageIsRefused/no certificate log"},
	{"judge.go", "verify.NewPolicy(what(!streams(certificate.PublicKey)), matchers...)", "verify.NewPolicy(what(!streams(certificate.PublicKey)), append(matchers[:0], verify.WithoutIdentitiesUnsafe())...)", "TestKeylessImageIsRefused/wrong issuer"},
	{"judge.go", "\tif d.stamped(sig) {\n\t\toptions = append(options, verify.WithSignedTimestamps(1))\n\t}\n\tvar matchers", "\tvar matchers", "TestKeylessImageIsRefused/foreign timestamp"},
	{"judge.go", "root.NewExpiringKey(k.verifier, k.notBefore, k.notAfter)", "root.NewExpiringKey(k.verifier, time.Time{}, time.Time{})", "TestKeyWindow/signed too late, with a clock set back"},
	{"judge.go", "if failure := d.checkWindow(v, k); failure != nil {", "if failure := d.checkWindow(v, k); failure != nil && false {", "TestKeyWindow/too late by the clock"},
	{"judge.go", "!k.notBefore.IsZero() && at.Before(k.notBefore)", "false", "TestKeyWindow/too early by the clock"},
	{"judge.go", "!k.notAfter.IsZero() && at.After(k.notAfter)", "false", "TestKeyWindow/too late by the clock"},
	{"judge.go", "(entries > 0 || d.logKeys)", "entries > 0", "TestBlobIsRefused/no log entry"},
	{"judge.go", "options = append(options, verify.WithTransparencyLog(1))", "_ = options", "TestKeyWithLogEntry/an entry about another signature"},
	{"judge.go", "timed = true\n\t\t\toptions = append(options, verify.WithSignedTimestamps(1))", "timed = false", "TestKeyWindow/timestamp of a foreign authority"},
	{"policy.go", "r := &p.rules[i]", "r := &p.rules[len(p.rules)-1-i]", "TestFirstRuleDecides"},
	{"policy.go", "r.coversImage(repository) && ", "", "TestKeyedImageIsRefused/a repository that no rule covers"},
	{"policy.go", " && (len(r.modules) == 0 || matchAny(r.modules, moduleName))", "", "TestFirstRuleDecides"},
	{"policyrule.go", "`\\A(?:`+subjectRegexp+`)\\z`", "subjectRegexp", "TestSubjectRegexpMatchesAll"},
	{"policyfile.go", "strict.KnownFields(true)", "", "TestPolicyIsRefused/a key unknown"},
	{"policyfile.go", "if line := anchored(&tree); line > 0 {", "if line := anchored(&tree); line < 0 {", "TestPolicyIsRefused/a merge key"},
	{"policyfile.go", "len(text) > PolicyMax", "false", "TestPolicyIsRefused/too large"},
	{"policyfile.go", "case len(doc.Rules) == 0:", "case false:", "TestPolicyIsRefused/no rules"},
	{"policyfile.go", "case !p.integrity.known():", "case false:", "TestPolicyIsRefused/a level called unsafe"},
	{"policyrule.go", "case len(doc.Images) == 0:", "case false:", "TestPolicyIsRefused/no images"},
	{"policyrule.go", "case len(doc.Keys)+len(doc.Identities) == 0:", "case false:", "TestPolicyIsRefused/nobody"},
	{"policyrule.go", `case len(doc.Identities) > 0 && doc.TrustedRoot == "":`, "case false:", "TestPolicyIsRefused/no trusted root"},
	{"policyrule.go", "err == nil && len(doc.Identities) > 0", "false", "TestPolicyIsRefused/no certificate log"},
	{"policyrule.go", "if !fs.ValidPath(name) || files == nil {", "if files == nil {", "TestPolicyIsRefused/a key file above"},
	{"policyrule.go", `case (subject == "") == (subjectRegexp == ""):`, "case false:", "TestPolicyIsRefused/no subject"},
	{"policyrule.go", `case issuer == "":`, "case false:", "TestPolicyIsRefused/no issuer"},
	{"publickey.go", `strings.Contains(block.Type, "PRIVATE KEY")`, "strings.Contains(block.Type, \"\\x00\")", "TestPolicyIsRefused/a private key"},
	{"publickey.go", "case len(bytes.TrimSpace(rest)) != 0:", "case bytes.TrimSpace(rest) == nil && rest != nil && len(rest) < 0:", "TestPolicyIsRefused/two keys in one"},
	{"publickey.go", "if !supported {", "if !supported && false {", "TestPolicyIsRefused/a curve unsupported"},
	{"blob.go", "case len(o.Key) > 0 && keyless:", "case false:", "TestBlobOptions/key and identity"},
	{"blob.go", "case keyless && len(o.TrustedRoot) == 0:", "case false:", "TestBlobOptions/identity without root"},
	{"blob.go", `(o.CertificateIdentity == "" || o.CertificateOIDCIssuer == "")`, `o.CertificateIdentity == "" && o.CertificateOIDCIssuer == ""`, "TestBlobOptions/issuer without identity"},
	{"blob.go", "if err == nil && keyless {", "if err == nil && false {", "TestBlobOptions/identity with half a root"},
	{"blob.go", `if (o.Artifact == nil) == (o.Digest == "") {`, `if o.Artifact == nil && o.Digest == "" {`, "TestBlobOptions/a file and a digest"},
	{"blob.go", "case file.err != nil:", "case false:", "TestBlobReadError"},
	{"blob.go", "if r.left -= int64(n); r.bounded && r.left < 0 {", "if r.bounded && r.left < 0 {", "TestBoundedReader"},
}

// TestMutations applies each mutation through a build overlay and runs the test that must notice.
func TestMutations(t *testing.T) {
	prove := os.Getenv("POWERNODE_MUTATE") != ""
	dir, err := os.Getwd()
	fatal(t, err)
	for _, m := range mutations {
		source, err := os.ReadFile(m.file)
		fatal(t, err)
		if n := strings.Count(string(source), m.source); n != 1 {
			t.Errorf("%s holds %q %d times, not once", m.file, m.source, n)
			continue
		}
		if !prove {
			continue
		}
		t.Run(m.file+" "+m.source, func(t *testing.T) {
			scratch := t.TempDir()
			mutant := filepath.Join(scratch, m.file)
			fatal(t, os.WriteFile(mutant, []byte(strings.Replace(string(source), m.source, m.mutant, 1)), 0o600))
			overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(dir, m.file): mutant}})
			fatal(t, err)
			fatal(t, os.WriteFile(filepath.Join(scratch, "overlay.json"), overlay, 0o600))
			var pattern []string
			for _, part := range strings.SplitN(m.test, "/", 2) {
				pattern = append(pattern, "^"+regexp.QuoteMeta(strings.ReplaceAll(part, " ", "_"))+"$")
			}
			out, err := exec.Command("go", "test", "-overlay", filepath.Join(scratch, "overlay.json"), "-vet=off", "-count=1", "-run", strings.Join(pattern, "/"), ".").CombinedOutput()
			switch {
			case err == nil && strings.Contains(string(out), "no tests to run"):
				t.Errorf("%s doesn't exist", m.test)
			case err == nil:
				t.Errorf("%s passes without the check", m.test)
			case !strings.Contains(string(out), "--- FAIL") && !strings.Contains(string(out), "panic:"):
				t.Errorf("the mutant doesn't build: %s", out)
			}
		})
	}
}
