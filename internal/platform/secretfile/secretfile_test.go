package secretfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for text, want := range map[string]string{"a b\n": "a b", "x": "x", " y \r\n\n": " y ", strings.Repeat("z", Limit): strings.Repeat("z", Limit)} {
		got, err := Read(write("good", text, 0o640), "--flag")
		if err != nil || got.Reveal() != want {
			t.Errorf("%.20q: %.20q, %v", text, got.Reveal(), err)
		}
	}
	for name, path := range map[string]string{
		"for everyone": write("open", "hidden", 0o604), "empty": write("empty", "\n", 0o600), "too long": write("long", strings.Repeat("z", Limit+1), 0o600),
		"absent": filepath.Join(dir, "absent"), "a directory": dir,
	} {
		_, err := Read(path, "--flag")
		if err == nil || fault.KindOf(err) != fault.Refuse || fault.HintOf(err) == "" || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
