package operatorcli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

func nodeCreateCommand(app *cli.App, conn *connection) *cobra.Command {
	var architecture string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a node known to the platform",
		Long: `Make a node known to the platform. The machine itself gets the identity with a bootstrap token:
see powernode token create.`,
		Example: "  powernode node create web-1 --architecture amd64",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.Node, error) {
				return c.CreateNode(cmd.Context(), operatorapi.NodeCreate{Name: args[0], Architecture: architecture})
			}, func(w io.Writer, node operatorapi.Node) error {
				return cli.Pairs(w, [][2]string{{"node", node.Name}, {"id", node.ID}, {"architecture", orDash(node.Architecture)}})
			})
		},
	}
	cmd.Flags().StringVar(&architecture, "architecture", "", "amd64 or arm64 (default: what the machine enrolls with)")
	return cmd
}

// orDash returns s, or "-" where there is nothing to show.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
