package operatorcli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

func nodeRevokeCommand(app *cli.App, conn *connection) *cobra.Command {
	var serial string
	cmd := &cobra.Command{
		Use:   "revoke NODE",
		Short: "End what a node may do: its certificates, or one of them",
		Long: `End what a node may do. Each of its certificates is refused from the next request on, also on
connections that are open; none can be renewed. Bootstrap tokens that nobody has used end too.
The node comes back with a new token: see powernode token create.`,
		Example: `  powernode node revoke web-1
  powernode node revoke web-1 --serial 5F3A09C27B1E4D60A1B2C3D4E5F60718`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.RevokeResult, error) {
				return c.RevokeNode(cmd.Context(), args[0], operatorapi.RevokeRequest{Serial: serial})
			}, func(w io.Writer, done operatorapi.RevokeResult) error {
				text := "none: they had ended before"
				if len(done.Serials) > 0 {
					text = strings.Join(done.Serials, ", ")
				}
				return cli.Pairs(w, [][2]string{{"revoked certificates", text}, {"ended tokens", fmt.Sprint(done.Tokens)}})
			})
		},
	}
	cmd.Flags().StringVar(&serial, "serial", "", "only the certificate of this serial number; tokens stay")
	return cmd
}
