package operatorcli

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

// eventList is what event list prints as JSON.
type eventList struct {
	// Platform are the platform's own events, Nodes what the nodes told; the newest first.
	Platform []operatorapi.Event     `json:"platform"`
	Nodes    []operatorapi.NodeEvent `json:"nodes"`
}

func eventCommand(app *cli.App, conn *connection) *cobra.Command {
	return group("event", "See what happened", eventListCommand(app, conn))
}

func eventListCommand(app *cli.App, conn *connection) *cobra.Command {
	var which operatorclient.Listing
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what happened on the platform and on the nodes, the newest first",
		Long: `List what the platform recorded, and what the nodes told of themselves, the newest first. A node's own events have
the time of its clock.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(app, conn, func(c *operatorclient.Client) (eventList, error) { return events(cmd.Context(), c, which) }, eventTable)
		},
	}
	cmd.Flags().StringVar(&which.Node, "node", "", "the events of one node, by ID or name")
	cmd.Flags().IntVar(&which.Limit, "limit", operatorapi.DefaultListed, "how many of the nodes' events to show at most")
	return cmd
}

// events asks for both lists.
func events(ctx context.Context, c *operatorclient.Client, which operatorclient.Listing) (eventList, error) {
	told, err := c.NodeEvents(ctx, which)
	if err != nil {
		return eventList{}, err
	}
	out := eventList{Nodes: told.Events}
	if which.Node != "" {
		node, err := c.Node(ctx, which.Node)
		out.Platform = node.Events
		return out, err
	}
	own, err := c.Events(ctx)
	out.Platform = own.Events
	return out, err
}

func eventTable(w io.Writer, list eventList) error {
	type line struct {
		at  time.Time
		row []string
	}
	var lines []line
	add := func(at time.Time, node, severity, kind, text string) {
		lines = append(lines, line{at, []string{at.UTC().Format(time.RFC3339), node, severity, kind, cli.Printable(text)}})
	}
	for _, e := range list.Platform {
		add(e.At, orDash(e.NodeID), "-", e.Kind, e.Text)
	}
	for _, e := range list.Nodes {
		add(e.At, e.NodeName, e.Severity, e.Kind, e.Text)
	}
	slices.SortStableFunc(lines, func(a, b line) int { return b.at.Compare(a.at) })
	rows := make([][]string, len(lines))
	for i, l := range lines {
		rows[i] = l.row
	}
	return cli.Rows(w, []string{"TIME", "NODE", "SEVERITY", "KIND", "TEXT"}, rows)
}
