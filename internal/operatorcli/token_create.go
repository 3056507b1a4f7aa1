package operatorcli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

func tokenCreateCommand(app *cli.App, conn *connection) *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "create NODE",
		Short: "Make a bootstrap token, by which a machine becomes the node",
		Long: `Make a bootstrap token, by which a machine becomes the node. The token is printed here and never
again: the platform keeps only its hash. It works once: whoever uses it first gets the node's
certificate, and certificates that the node had before are revoked.

--output json has the token with everything else that a machine needs: the node's ID, the
platform's URL and its CA.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if ttl < time.Second || ttl > operatorapi.MaxTokenTTL {
				return fault.New(fault.Refuse, fault.Input, fmt.Sprintf("give --ttl between 1s and %s", operatorapi.MaxTokenTTL), "a token can't live %s", ttl)
			}
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.Token, error) {
				return c.CreateToken(cmd.Context(), args[0], operatorapi.TokenCreate{TTLSeconds: int64(ttl / time.Second)})
			}, func(w io.Writer, token operatorapi.Token) error {
				return cli.Pairs(w, [][2]string{
					{"node", token.NodeName},
					{"id", token.NodeID},
					{"platform", token.PlatformURL},
					{"token", token.Token},
					{"good until", token.ExpiresAt.Format(time.RFC3339)},
				})
			})
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", operatorapi.DefaultTokenTTL, "how long the token lives")
	return cmd
}
