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

func claimCommand(app *cli.App, conn *connection) *cobra.Command {
	return group("claim", "Take in machines that show a claim code",
		claimListCommand(app, conn), claimAcceptCommand(app, conn), claimRejectCommand(app, conn))
}

func claimListCommand(app *cli.App, conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the machines that ask to become a node",
		Long: `List the machines that ask to become a node. What a machine says of itself is a stranger's word: only
the code tells machines apart, and it is on the machine's own console.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.ClaimList, error) {
				return c.Claims(cmd.Context())
			}, func(w io.Writer, list operatorapi.ClaimList) error { return claimTable(w, list.Claims) })
		},
	}
}

func claimTable(w io.Writer, claims []operatorapi.Claim) error {
	rows := make([][]string, 0, len(claims))
	for _, c := range claims {
		rows = append(rows, []string{
			c.Code, string(c.State), orDash(c.NodeName), c.MAC, orDash(c.Hostname), orDash(c.Architecture), c.Address,
			(time.Duration(c.SilentSeconds) * time.Second).String() + " ago",
		})
	}
	if err := cli.Rows(w, []string{"CODE", "STATE", "NODE", "MAC", "HOST NAME", "ARCH", "ADDRESS", "ASKED"}, rows); err != nil {
		return err
	}
	return claimRemarks(w, claims...)
}

// claimRemarks prints what should be known before a claim is accepted.
func claimRemarks(w io.Writer, claims ...operatorapi.Claim) error {
	for _, c := range claims {
		for _, remark := range c.Remarks {
			if _, err := fmt.Fprintf(w, "%s: %s\n", c.Code, cli.Printable(remark)); err != nil {
				return err
			}
		}
	}
	return nil
}

func claimAcceptCommand(app *cli.App, conn *connection) *cobra.Command {
	var in operatorapi.ClaimAccept
	cmd := &cobra.Command{
		Use:   "accept CODE",
		Short: "Make the machine that shows a claim code a node",
		Long: `Make the machine that shows a claim code a node: one that there is, or a new one. The machine gets its
certificate the next time that it asks. The code may be typed in lower case, with its hyphen or without.

Accept a code only if you see it on the machine's own console: everybody who reaches the platform
can ask for one.`,
		Example: "  powernode claim accept ABCD-EFGH --node web-1\n  powernode claim accept abcdefgh --create web-2",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if in.Node == "" && in.Create == "" {
				return fault.New(fault.Refuse, fault.Input, "give --node NODE, or --create NAME for a new one", "accept claim %.40q: it isn't said which node the machine becomes", args[0])
			}
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.Claim, error) {
				return c.AcceptClaim(cmd.Context(), args[0], in)
			}, printClaim)
		},
	}
	cmd.Flags().StringVar(&in.Node, "node", "", "the node, by ID or name, that the machine becomes")
	cmd.Flags().StringVar(&in.Create, "create", "", "name of a new node that the machine becomes")
	cmd.Flags().BoolVar(&in.Replace, "replace", false, "take the identity of a node that is running away from its machine")
	cmd.MarkFlagsMutuallyExclusive("node", "create")
	return cmd
}

func claimRejectCommand(app *cli.App, conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "reject CODE",
		Short: "Refuse the machine that shows a claim code",
		Long: `Refuse the machine that shows a claim code, or take back an acceptance that the machine hasn't used yet.
It may be accepted again for as long as the machine asks.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.Claim, error) {
				return c.RejectClaim(cmd.Context(), args[0])
			}, printClaim)
		},
	}
}

func printClaim(w io.Writer, c operatorapi.Claim) error {
	pairs := [][2]string{{"claim", c.Code}, {"state", string(c.State)}}
	if c.NodeID != "" {
		pairs = append(pairs, [2]string{"node", c.NodeName}, [2]string{"id", c.NodeID})
	}
	pairs = append(pairs, [2]string{"mac", c.MAC}, [2]string{"host name", orDash(c.Hostname)}, [2]string{"address", c.Address})
	if err := cli.Pairs(w, pairs); err != nil {
		return err
	}
	return claimRemarks(w, c)
}
