package operatorcli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorapi"
)

func assignCommand(app *cli.App, conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:     "assign NODE MODULE...",
		Short:   "Assign modules to a node",
		Long:    "Assign modules to a node. A module that is assigned already stays so.",
		Example: "  powernode assign web-1 system-base nginx nginx-site",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := conn.client()
			if err != nil {
				return err
			}
			defer client.Close()
			var list operatorapi.AssignmentList
			for i, module := range args[1:] {
				list, err = client.Assign(cmd.Context(), args[0], operatorapi.AssignmentCreate{Module: module})
				if err != nil {
					return partly(err, i, "assign", module, args[0])
				}
			}
			return app.Print(list, func(w io.Writer) error { return assignmentTable(w, args[0], list) })
		},
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
