package module

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/oracle"
)

// ascending are versions, each older than the next.
var ascending = []string{
	"0~", "0", "0.0", "0.9~beta1", "0.9", "1~~", "1~~a", "1~", "1~rc1", "1", "1A.9~", "1a", "1a1", "1.0~~git", "1.0~rc1", "1.0~rc2", "1.0~rc10",
	"1.0", "1.0a", "1.0b1", "1.0+b1", "1.0+b2", "1.0-1", "1.0-rc1", "1.0.0", "1.0.1", "1.0^", "1.9", "1.10", "1.10.0_1", "1.28.0-1", "1.28.0-2",
	"1.28.1", "2", "10", "20261122", "20261122T1", "20261123",
	"340282366920938463463374607431768211456", "340282366920938463463374607431768211457", "a", "b", "v1", "v2", "v10",
}

func TestCompareVersions(t *testing.T) {
	for i, a := range ascending {
		for j, b := range ascending {
			if got, want := CompareVersions(a, b), cmp.Compare(i, j); got != want {
				t.Errorf("%q against %q: %d, want %d", a, b, got, want)
			}
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "~", 1},
		{"", "0", 0},
		{"", "a", -1},
		{"1.0", "1.00", 0},
		{"1.01", "1.1", 0},
		{"007", "7", 0},
		{"1.0~rc1", "1.0", -1},
		{"1.9", "1.10", -1},
		{"1.0", "1.0.1", -1},
		{"1.0-rc1", "1.0", 1}, // not as semantic versioning has it
		{"1.0a", "1.0.", -1},
		{"1.0Z", "1.0a", -1},
		{"99999999999999999999998", "99999999999999999999999", -1},
		{"100000000000000000000000", "99999999999999999999999", 1},
		{"1.0\x00", "1.0", 1},
	} {
		if got := CompareVersions(c.a, c.b); got != c.want {
			t.Errorf("%q against %q: %d, want %d", c.a, c.b, got, c.want)
		}
		if got := CompareVersions(c.b, c.a); got != -c.want {
			t.Errorf("%q against %q: %d, want %d", c.b, c.a, got, -c.want)
		}
	}
}

// dpkgPairs asks dpkg about pairs of versions, all in one shell. An epoch before and a revision behind make what is
// between an upstream version, also where it holds a colon or a hyphen.
func dpkgPairs(t testing.TB, pairs [][2]string) []int {
	t.Helper()
	if _, err := exec.LookPath("dpkg"); err != nil {
		oracle.Missing(t, "dpkg isn't installed")
	}
	var script bytes.Buffer
	for _, p := range pairs {
		fmt.Fprintf(&script, "if dpkg --compare-versions '0:%[1]s-0' lt '0:%[2]s-0'; then echo lt; elif dpkg --compare-versions '0:%[1]s-0' eq '0:%[2]s-0'; then echo eq; else echo gt; fi\n", p[0], p[1])
	}
	cmd := exec.CommandContext(t.Context(), "sh")
	cmd.Stdin = &script
	out, err := cmd.Output() // dpkg warns of versions that don't begin with a digit
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(string(out))
	if len(words) != len(pairs) {
		t.Fatalf("%d answers to %d questions", len(words), len(pairs))
	}
	answers := make([]int, len(words))
	for i, w := range words {
		answers[i] = map[string]int{"lt": -1, "eq": 0, "gt": 1}[w]
	}
	return answers
}

func comparePairs(t testing.TB, pairs [][2]string) {
	t.Helper()
	for i, want := range dpkgPairs(t, pairs) {
		if got := CompareVersions(pairs[i][0], pairs[i][1]); got != want {
			t.Errorf("%q against %q: %d, dpkg says %d", pairs[i][0], pairs[i][1], got, want)
		}
	}
}

// TestCompareVersionsAsDpkg: neighbours of the table, and versions made of the characters that count.
func TestCompareVersionsAsDpkg(t *testing.T) {
	var pairs [][2]string
	for i, v := range ascending {
		// dpkg counts in a C int, and has neither "^" nor "_" in versions.
		if i == 0 || strings.ContainsAny(v+ascending[i-1], "^_") || len(v) > 9 {
			continue
		}
		pairs = append(pairs, [2]string{ascending[i-1], v})
	}
	const alphabet = "0019~~..+-abZ"
	random := rand.New(rand.NewPCG(5, 7))
	word := func() string {
		b := []byte{'1'}
		for range random.IntN(6) {
			b = append(b, alphabet[random.IntN(len(alphabet))])
		}
		return string(b)
	}
	for range 400 {
		v := word()
		other := word()
		if random.IntN(2) == 0 { // alike but for the end
			other = v[:random.IntN(len(v))+1] + word()[1:]
		}
		pairs = append(pairs, [2]string{v, other})
	}
	comparePairs(t, pairs)
}

// FuzzCompareVersions checks what any order has to be, and compares with dpkg what both may judge.
func FuzzCompareVersions(f *testing.F) {
	for i := 2; i < len(ascending); i += 3 {
		f.Add(ascending[i-2], ascending[i-1], ascending[i])
	}
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if CompareVersions(a, a) != 0 {
			t.Errorf("%q isn't as old as itself", a)
		}
		ab, ba := CompareVersions(a, b), CompareVersions(b, a)
		if ab != -ba {
			t.Errorf("%q against %q: %d, the other way %d", a, b, ab, ba)
		}
		if bc := CompareVersions(b, c); ab <= 0 && bc <= 0 && CompareVersions(a, c) != max(-1, ab+bc) {
			t.Errorf("%q, %q and %q are in no order", a, b, c)
		}
		if plain(a) && plain(b) {
			comparePairs(t, [][2]string{{a, b}})
		}
	})
}

// plain says that dpkg takes s for an upstream version as we do: its characters, and numbers that fit.
func plain(s string) bool {
	for run, i := 0, 0; i < len(s); i++ {
		if isDigit(s[i]) {
			if run++; run > 9 {
				return false
			}
			continue
		}
		run = 0
		if !isAlphanumeric(s[i]) && !strings.ContainsRune(".+~-", rune(s[i])) {
			return false
		}
	}
	return s != "" && isDigit(s[0])
}
