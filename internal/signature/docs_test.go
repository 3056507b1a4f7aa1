package signature

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

// TestDocs reads docs/trust.md: its policy must load, and what it says about checks and refusals
// must be what this package says.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/trust.md")
	fatal(t, err)
	files := fstest.MapFS{"keys/release.pub": {Data: newSigner(t).PublicPEM()}, "trusted_root.json": {Data: newInstance(t).trustedRoot(t)}}
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1)
	if len(examples) != 1 {
		t.Fatalf("%d examples of a policy", len(examples))
	}
	p, err := LoadPolicy(examples[0][1], files)
	fatal(t, err)
	if len(p.Rules()) != 2 || p.Integrity() != LevelEnforced {
		t.Errorf("the example is read as %+v", p.Rules())
	}
	for _, name := range append(append(append([]CheckName{CheckReference}, keyChecks...), identityChecks...), manifestChecks...) {
		if !strings.Contains(string(text), "| `"+string(name)+"` |") {
			t.Errorf("the check %q isn't described", name)
		}
	}
	var sources strings.Builder
	for _, file := range []string{"verifier.go", "judge.go", "classify.go", "manifest.go"} {
		source, err := os.ReadFile(file)
		fatal(t, err)
		sources.Write(source)
	}
	_, table, _ := strings.Cut(string(text), "| the sentence says |")
	table, _, _ = strings.Cut(table, "\n\n")
	rows := strings.Split(table, "\n")[2:]
	if len(rows) < 10 {
		t.Fatalf("the table of refusals has %d rows", len(rows))
	}
	for _, row := range rows {
		sentence := strings.TrimSpace(strings.Split(row, "|")[1])
		// The words between the placeholders.
		for _, words := range regexp.MustCompile(`"?…"?,?`).Split(sentence, -1) {
			if words = strings.Trim(words, " ,"); words != "" && !strings.Contains(sources.String(), words) {
				t.Errorf("no refusal says %q (of %q)", words, sentence)
			}
		}
	}
}
