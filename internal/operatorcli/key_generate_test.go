package operatorcli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
)

// TestKeyGenerate makes a key, keeps the files that are there and names a place that isn't.
func TestKeyGenerate(t *testing.T) {
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		out  string
		code int
		want string
	}{
		{"new", cli.ExitOK, ""},
		{"new", cli.ExitDestructive, "new.key is there already; choose another name"},
		{"none/new", cli.ExitFailure, "choose a place that can be written"},
	} {
		code, _, errs := powernode(t, context.Background(), strings.NewReader(""), "key", "generate", "--password-file", password, "--out", filepath.Join(dir, c.out))
		if code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%s: code %d, %q; want %d and %q", c.out, code, errs, c.code, c.want)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "new.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the private key: %v, %v", info, err)
	}
}

func TestFullDiskIsTheDisksFault(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	err = fillFile(full, []byte("key"))
	if cli.ExitCode(err) != cli.ExitMount || fault.KindOf(err) != fault.Retry || !strings.Contains(fault.HintOf(err), "free space on /dev") {
		t.Errorf("exit code %d, %v, hint %q", cli.ExitCode(err), err, fault.HintOf(err))
	}
}
