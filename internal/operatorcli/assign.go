package operatorcli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

func assignCommand(app *cli.App, conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:     "assign NODE MODULE...",
		Short:   "Assign modules to a node",
		Long:    "Assign modules to a node. A module that is assigned already stays so.",
		Example: "  powernode assign web-1 system-base nginx nginx-site",
		Args:    cobra.MinimumNArgs(2),
		RunE: eachModule(app, conn, func(ctx context.Context, c *operatorclient.Client, node, module string) (operatorapi.AssignmentList, error) {
			return c.Assign(ctx, node, operatorapi.AssignmentCreate{Module: module})
		}),
	}
}

func unassignCommand(app *cli.App, conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "unassign NODE MODULE...",
		Short: "Take modules from a node",
		Args:  cobra.MinimumNArgs(2),
		RunE: eachModule(app, conn, func(ctx context.Context, c *operatorclient.Client, node, module string) (operatorapi.AssignmentList, error) {
			return c.Unassign(ctx, node, module)
		}),
	}
}

// eachModule is a command that changes one assignment after the other, and shows
// what the node has then.
func eachModule(
	app *cli.App, conn *connection,
	change func(ctx context.Context, c *operatorclient.Client, node, module string) (operatorapi.AssignmentList, error),
) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		node := args[0]
		return show(app, conn, func(client *operatorclient.Client) (list operatorapi.AssignmentList, err error) {
			for i, module := range args[1:] {
				if list, err = change(cmd.Context(), client, node, module); err != nil {
					return list, partly(err, i, cmd.Name(), module, node)
				}
			}
			return list, nil
		}, func(w io.Writer, list operatorapi.AssignmentList) error { return assignmentTable(w, node, list) })
	}
}

// partly says how far a command of several steps came before it failed.
func partly(err error, done int, verb, module, node string) error {
	if done == 0 {
		return err
	}
	return fmt.Errorf("%s %s (%d before it are done, node %s): %w", verb, module, done, node, err)
}

// assignmentTable lists what a node has, with the root that comes of it.
func assignmentTable(w io.Writer, node string, list operatorapi.AssignmentList) error {
	root := list.ExpectedRootDigest
	if root == "" {
		root = list.ExpectedRootError
	}
	if err := cli.Pairs(w, [][2]string{{"node", node}, {"modules", fmt.Sprint(list.Count)}, {"expected root", orDash(root)}}); err != nil {
		return err
	}
	if list.Count == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return cli.Rows(w, moduleHeader, moduleRows(list.Assignments))
}
