package operatorcli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

func moduleListCommand(app *cli.App, conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the modules that the platform knows, in their current versions",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.ModuleList, error) {
				return c.Modules(cmd.Context())
			}, func(w io.Writer, list operatorapi.ModuleList) error {
				return cli.Rows(w, moduleHeader, moduleRows(list.Modules))
			})
		},
	}
}

var moduleHeader = []string{"MODULE", "VERSION", "VARIETY", "PRIORITY", "ARCH", "SEAL", "IMAGE"}

// moduleRows lists modules, one row for each architecture.
func moduleRows(list []operatorapi.Module) [][]string {
	var rows [][]string
	for _, m := range list {
		for _, image := range m.Images {
			rows = append(rows, []string{
				m.Name, m.Version, m.Variety, fmt.Sprint(m.EffectivePriority), image.Architecture, cli.ShortDigest(image.Seal), m.Repository + "@" + m.Digest,
			})
		}
	}
	return rows
}
