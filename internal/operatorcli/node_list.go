package operatorcli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

func nodeListCommand(app *cli.App, conn *connection) *cobra.Command {
	var state string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the nodes, and whether each runs what it should",
		Long: `List the nodes, and whether each runs what it should. The states are:

  in-step  runs the root that its modules make, or nothing where none are assigned
  behind   runs what its modules made earlier, or nothing yet
  drifted  runs a root that none of its assignments, now or earlier, explains
  silent   hasn't been heard of for three minutes
  unknown  hasn't been heard of at all, or can't be compared: powernode node show says why`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(app, conn, func(c *operatorclient.Client) (operatorapi.NodeList, error) {
				return c.NodesIn(cmd.Context(), operatorapi.NodeState(state))
			}, func(w io.Writer, list operatorapi.NodeList) error { return nodeTable(w, list.Nodes) })
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "only nodes in that state: in-step, behind, drifted, silent or unknown")
	return cmd
}

func nodeTable(w io.Writer, nodes []operatorapi.Node) error {
	rows := make([][]string, 0, len(nodes))
	for _, n := range nodes {
		var report operatorapi.Report
		if n.Report != nil {
			report = *n.Report
		}
		rows = append(rows, []string{
			n.Name, string(n.Status), orDash(n.Architecture), fmt.Sprint(n.Modules), string(n.State), orDash(cli.ShortDigest(report.RootDigest)),
			orDash(cli.ShortDigest(n.ExpectedRootDigest)), orDash(report.IntegrityLevel), orDash(report.AgentVersion), heartbeatAge(n), concern(n),
		})
	}
	return cli.Rows(w, []string{"NAME", "STATUS", "ARCH", "MODULES", "STATE", "ROOT", "EXPECTED", "LEVEL", "AGENT", "HEARTBEAT", "WAITS"}, rows)
}

// concern says in a word what of the node waits for an operator: powernode node show has the sentences.
func concern(n operatorapi.Node) string {
	var words []string
	if len(n.Attention) > 0 {
		words = append(words, "identity")
	}
	if n.WaitingRenewals > 0 {
		words = append(words, "renewal")
	}
	return orDash(strings.Join(words, ", "))
}

func heartbeatAge(n operatorapi.Node) string {
	if n.Report == nil {
		return "never"
	}
	return (time.Duration(n.Report.AgeSeconds) * time.Second).String() + " ago"
}
