package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/oracle"
)

// TestDecisions: the pages of docs/decisions are numbered without a gap, each has its title, date
// and sections, and the index lists each under its title.
func TestDecisions(t *testing.T) {
	dir := filepath.Join(oracle.Root(t), "docs", "decisions")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	title := regexp.MustCompile(`^# (\d{4}): (.+)$`)
	count := 0
	for _, e := range entries {
		if e.Name() == "README.md" {
			continue
		}
		count++
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		number := fmt.Sprintf("%04d", count)
		lines := strings.Split(string(text), "\n")
		m := title.FindStringSubmatch(lines[0])
		if m == nil || m[1] != number || !strings.HasPrefix(e.Name(), number+"-") {
			t.Errorf("%s: want the page of decision %s, its title %q", e.Name(), number, lines[0])
			continue
		}
		if len(lines) < 3 || !regexp.MustCompile(`^\d{4}-\d{2}-\d{2}$`).MatchString(lines[2]) {
			t.Errorf("%s: no date below the title", e.Name())
		}
		for _, section := range []string{"## Context", "## Decision", "## Rejected"} {
			if !slices.Contains(lines, section) {
				t.Errorf("%s has no section %q", e.Name(), section)
			}
		}
		if row := fmt.Sprintf("| [%s](%s) | %s |", number, e.Name(), m[2]); !strings.Contains(string(index), row+"\n") {
			t.Errorf("the index lacks the row %s", row)
		}
	}
	if count == 0 {
		t.Error("no decisions found")
	}
}
