package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/oracle"
)

// TestExitCodesAreDocumented keeps docs/exit-codes.md in step; run with UPDATE_DOCS=1 to rewrite it.
func TestExitCodesAreDocumented(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Exit codes\n\nThe same for all three programs. A test keeps this table equal to the one in `internal/cli`.\n\n| code | meaning |\n|---|---|\n")
	for _, row := range ExitTable() {
		fmt.Fprintf(&b, "| %d | %s |\n", row.Code, row.Meaning)
	}
	path := filepath.Join(oracle.Root(t), "docs", "exit-codes.md")
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil || string(have) != b.String() {
		t.Errorf("docs/exit-codes.md differs from the table: run UPDATE_DOCS=1 go test ./internal/cli (%v)", err)
	}
}
