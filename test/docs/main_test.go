package docs

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/test/alone"
)

// TestMain lets this test be the programs, too: started under the name of one, it is that one.
// So commands that a page shows can be run without building anything, away from the cloud of this machine.
func TestMain(m *testing.M) {
	if newProgram, ok := programs[filepath.Base(os.Args[0])]; ok {
		app := cli.NewApp()
		os.Exit(app.Run(context.Background(), newProgram(app), os.Args[1:]))
	}
	os.Exit(alone.Main(m.Run))
}

func TestAlone(t *testing.T) { alone.Check(t) }

// programsPath returns a PATH on which the programs are found before all else, then the tools.
func programsPath(t *testing.T, more ...string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name := range programs {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	path := dir
	for _, tool := range more {
		path += ":" + filepath.Dir(tool)
	}
	return path + ":" + os.Getenv("PATH")
}
