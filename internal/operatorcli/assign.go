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
	var allowDowngrade bool
	cmd := &cobra.Command{
		Use:   "assign NODE MODULE...",
		Short: "Assign modules to a node",
		Long: `Assign modules to a node. A module that is assigned already stays so.

A node refuses a version of a module that is lower than one that was current on it. --allow-downgrade says that the version
which is current now is meant; --allow-downgrade=false takes that back. It counts for no other version.`,
		Example: "  powernode assign web-1 system-base nginx nginx-site\n  powernode assign web-1 nginx --allow-downgrade",
		Args:    cobra.MinimumNArgs(2),
	}
	cmd.Flags().BoolVar(&allowDowngrade, "allow-downgrade", false, "let the node go down to the current version from a higher one")
	cmd.RunE = eachModule(app, conn, func(ctx context.Context, c *operatorclient.Client, node, module string) (operatorapi.AssignmentList, error) {
		in := operatorapi.AssignmentCreate{Module: module}
		if cmd.Flags().Changed("allow-downgrade") {
			in.AllowDowngrade = &allowDowngrade
		}
		return c.Assign(ctx, node, in)
	})
	return cmd
}

func unassignCommand(app *cli.App, conn *connection) *cobra.Command {
	var removeMost bool
	cmd := &cobra.Command{
		Use:   "unassign NODE MODULE...",
		Short: "Take modules from a node",
		Long: `Take modules from a node.

A node that would lose more than half of its modules at once keeps what it has, unless --remove-most says that this is meant.
That counts until the node reports that it runs nothing that isn't assigned to it. Where it was forgotten, the same command with it
makes up for that. A node never lets its last module go.`,
		Example: "  powernode unassign web-1 nginx-site\n  powernode unassign web-1 nginx nginx-site --remove-most",
		Args:    cobra.MinimumNArgs(2),
	}
	cmd.Flags().BoolVar(&removeMost, "remove-most", false, "let the node lose more than half of its modules at once")
	cmd.RunE = eachModule(app, conn, func(ctx context.Context, c *operatorclient.Client, node, module string) (operatorapi.AssignmentList, error) {
		if removeMost {
			return c.UnassignMost(ctx, node, module)
		}
		return c.Unassign(ctx, node, module)
	})
	return cmd
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
	pairs := append([][2]string{{"node", node}, {"modules", fmt.Sprint(list.Count)}, {"expected root", orDash(root)}}, words(list.RemoveMost, list.Assignments)...)
	if err := cli.Pairs(w, pairs); err != nil {
		return err
	}
	if list.Count == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return cli.Rows(w, moduleHeader, moduleRows(list.Assignments))
}

// words are what the operator has said is meant, although the node would take it for a mistake.
func words(removeMost bool, assigned []operatorapi.Module) [][2]string {
	var pairs [][2]string
	if removeMost {
		pairs = append(pairs, [2]string{"remove most", "allowed until the node runs nothing that isn't assigned"})
	}
	for _, m := range assigned {
		if m.AllowDowngrade {
			pairs = append(pairs, [2]string{"downgrade", "allowed to " + m.Name + " " + m.Version})
		}
	}
	return pairs
}
