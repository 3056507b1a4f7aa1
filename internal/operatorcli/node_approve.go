package operatorcli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorapi"
)

func nodeApproveCommand(app *cli.App, conn *connection) *cobra.Command {
	var in operatorapi.ApproveRequest
	cmd := &cobra.Command{
		Use:   "approve NODE",
		Short: "Approve, or deny, what waits at a node: a renewal, or a doubt about its identity",
		Long: `Approve what waits at a node. A renewal is that of a certificate that expired, or that was superseded,
as after a backup was restored; powernode node show tells when it was asked for, from where, and by
which machine. The approval is for that one request's key. Where a node calls for attention because
two machines seem to use its identity, the approval also says that the one which reported last is the node.

A denial is for the certificate, whatever key comes with it: its holder needs a new token.`,
		Example: `  powernode node approve web-1
  powernode node approve web-1 --deny
  powernode node approve web-1 --renewal 3f0c`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := conn.client()
			if err != nil {
				return err
			}
			defer client.Close()
			done, err := client.ApproveNode(cmd.Context(), args[0], in)
			if err != nil {
				return err
			}
			return app.Print(done, func(w io.Writer) error {
				var pairs [][2]string
				for _, r := range done.Renewals {
					pairs = append(pairs, [2]string{r.State, "the renewal of certificate " + r.Serial + ", asked for from " + r.From})
				}
				for _, text := range done.Cleared {
					pairs = append(pairs, [2]string{"cleared", text})
				}
				return cli.Pairs(w, pairs)
			})
		},
	}
	cmd.Flags().BoolVar(&in.Deny, "deny", false, "deny the renewals that wait")
	cmd.Flags().StringVar(&in.Renewal, "renewal", "", "the renewal that is meant, by the beginning of its ID, where several wait")
	return cmd
}
