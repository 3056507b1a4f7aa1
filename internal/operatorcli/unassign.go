package operatorcli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorapi"
)

func unassignCommand(app *cli.App, conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "unassign NODE MODULE...",
		Short: "Take modules from a node",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := conn.client()
			if err != nil {
				return err
			}
			defer client.Close()
			var list operatorapi.AssignmentList
			for i, module := range args[1:] {
				if list, err = client.Unassign(cmd.Context(), args[0], module); err != nil {
					return partly(err, i, "unassign", module, args[0])
				}
			}
			return app.Print(list, func(w io.Writer) error { return assignmentTable(w, args[0], list) })
		},
	}
}
