package operatorcli

import (
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

func auditCommand(app *cli.App, conn *connection) *cobra.Command {
	return group("audit", "See what operators did", auditListCommand(app, conn))
}

func auditListCommand(app *cli.App, conn *connection) *cobra.Command {
	var which operatorclient.AuditQuery
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what operators changed, or tried to, the newest first",
		Long: `List what operators changed, or tried to, the newest first: by which token, from where, what, on what, and what came of it. --output
json has the beginning of what was sent as well. It needs a token with the role admin. The platform keeps the last hundred thousand.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.AuditList, error) { return c.Audit(cmd.Context(), which) }, auditTable)
		},
	}
	cmd.Flags().StringVar(&which.By, "by", "", "what was done by one token, by its name")
	cmd.Flags().Int64Var(&which.Before, "before", 0, "go on before the entry of this ID")
	cmd.Flags().IntVar(&which.Limit, "limit", operatorapi.DefaultListed, "how many to show at most")
	return cmd
}

func auditTable(w io.Writer, list operatorapi.AuditList) error {
	rows := make([][]string, 0, len(list.Entries))
	for _, e := range list.Entries {
		result := e.Result
		if e.Error != "" {
			result += ": " + e.Error
		}
		rows = append(rows, []string{
			e.At.UTC().Format(time.RFC3339), cli.Printable(e.By), string(e.Role), e.From, e.Action, orDash(cli.Printable(e.Target)), cli.Printable(result),
		})
	}
	return cli.Rows(w, []string{"TIME", "BY", "ROLE", "FROM", "ACTION", "ON", "RESULT"}, rows)
}
