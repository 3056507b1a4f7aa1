package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/version"
)

// VersionCommand returns the `version` command, the same in all three programs.
func (a *App) VersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program, its module format and its protocol",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			i := version.Get()
			return a.Print(i, func(w io.Writer) error {
				return Pairs(w, [][2]string{
					{"version", i.Version},
					{"commit", i.Commit},
					{"date", i.Date},
					{"go", i.Go + " " + i.Platform},
					{"protocol version", fmt.Sprint(i.Protocol)},
					{"module schema version", fmt.Sprint(i.ModuleSchema)},
					{"image version", fmt.Sprint(i.Image)},
				})
			})
		},
	}
}
