package operatorcli

import (
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

func nodeApproveCommand(app *cli.App, conn *connection) *cobra.Command {
	var in operatorapi.ApproveRequest
	var unfiled, dryRun bool
	cmd := &cobra.Command{
		Use:   "approve {NODE | --unfiled}",
		Short: "Approve, or deny, what waits at a node: a renewal, or a doubt about its identity",
		Long: `Approve what waits at a node: see it first with powernode node show.

A renewal is that of a certificate that expired, or that was superseded, as after a backup was restored.
The approval is for that one request's key. Where several wait, --renewal says which is meant.

Where a node calls for attention because two machines seem to use its identity, the approval says that you
know why, and that the machine which reported last is the node. Where a renewal waits as well, say which is
meant: --attention, or --renewal with its ID. The renewal may be that of the other machine.

A denial is for the certificate, whatever key comes with it: its holder needs a new token.

After a backup of the platform's database was restored, each node whose certificate was issued since waits
for an approval. --unfiled approves all of these, and only these, that wait now; --dry-run lists them. Nodes
where several renewals wait, or that call for attention, are left to be decided one by one. Revoke first what
was revoked since the backup was made, and each node that was enrolled anew on another machine since: the
database doesn't know of that any more.`,
		Example: `  powernode node approve web-1
  powernode node approve web-1 --renewal 3f0c91d2
  powernode node approve web-1 --attention
  powernode node approve web-1 --deny
  powernode node approve --unfiled --dry-run`,
		Args: func(cmd *cobra.Command, args []string) error {
			if unfiled {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.ExactArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if dryRun && !unfiled {
				return fault.New(fault.Refuse, fault.Input, "powernode node show NODE says what waits at one node", "--dry-run goes with --unfiled only")
			}
			if unfiled {
				return show(app, conn, func(c *operatorclient.Client) (operatorapi.UnfiledList, error) {
					if dryRun {
						return c.Unfiled(cmd.Context())
					}
					return c.ApproveUnfiled(cmd.Context())
				}, unfiledTable)
			}
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.ApproveResult, error) {
				return c.ApproveNode(cmd.Context(), args[0], in)
			}, printApproved)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&in.Deny, "deny", false, "deny the renewals that wait")
	flags.StringVar(&in.Renewal, "renewal", "", "the renewal that is meant, by its ID or at least the first 4 characters of it")
	flags.BoolVar(&in.Attention, "attention", false, "what calls for attention is meant, and no renewal")
	flags.BoolVar(&unfiled, "unfiled", false, "approve the renewals of all nodes whose certificate wasn't on file after a backup was restored")
	flags.BoolVar(&dryRun, "dry-run", false, "with --unfiled: only list what would be approved")
	for _, other := range []string{"deny", "renewal", "unfiled"} {
		cmd.MarkFlagsMutuallyExclusive("attention", other)
	}
	cmd.MarkFlagsMutuallyExclusive("unfiled", "deny")
	cmd.MarkFlagsMutuallyExclusive("unfiled", "renewal")
	return cmd
}

func printApproved(w io.Writer, done operatorapi.ApproveResult) error {
	var pairs [][2]string
	for _, r := range done.Renewals {
		pairs = append(pairs, [2]string{r.State, "the renewal of certificate " + r.Serial + ", asked for at " + r.AskedAt.Format(time.RFC3339) + " from " + orDash(r.From)})
	}
	for _, text := range done.Cleared {
		pairs = append(pairs, [2]string{"cleared", text})
	}
	return cli.Pairs(w, pairs)
}
