package operatorcli

import (
	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/fault"
)

// imageDumpCommand returns `powernode image dump`.
func imageDumpCommand(app *cli.App) *cobra.Command {
	return &cobra.Command{
		Use:   "dump IMAGE",
		Short: "Print an image as a composefs dump",
		Long: `Prints an image in composefs's text format for dumps, composefs-dump(5), which "image create
--from-file" and mkcomposefs --from-file read. IMAGE may be - for standard input.`,
		Example: `  powernode image dump root.cfs >root.dump`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if app.Format == cli.JSON {
				return fault.New(fault.Refuse, fault.Input, "leave --output away, or use image ls", "a dump has no other form, JSON neither")
			}
			root, err := readImage(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			return composefs.WriteDump(app.Out, root)
		},
	}
}
