// Command man writes the man pages and shell completions of the three programs, from the same
// commands that the programs run: man DIR fills DIR/man8 and DIR/completions.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/powernode/powernode-agent/internal/agentcli"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorcli"
	"github.com/powernode/powernode-agent/internal/platformcli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: man DIR")
		os.Exit(1)
	}
	app := cli.NewApp()
	for _, root := range []*cobra.Command{agentcli.New(app), platformcli.New(app), operatorcli.New(app)} {
		if err := write(os.Args[1], root); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// write renders one program's pages and completions below dir.
func write(dir string, root *cobra.Command) error {
	pages, completions := filepath.Join(dir, "man8"), filepath.Join(dir, "completions")
	for _, d := range []string{pages, completions} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	root.DisableAutoGenTag = true
	header := &doc.GenManHeader{Section: "8", Source: "Powernode", Manual: "Powernode Manual"}
	if err := doc.GenManTree(root, header, pages); err != nil {
		return fmt.Errorf("write the man pages of %s: %w", root.Name(), err)
	}
	base := filepath.Join(completions, root.Name())
	if err := root.GenBashCompletionFileV2(base+".bash", true); err != nil {
		return err
	}
	if err := root.GenZshCompletionFile(base + ".zsh"); err != nil {
		return err
	}
	return root.GenFishCompletionFile(base+".fish", true)
}
