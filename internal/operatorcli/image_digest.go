package operatorcli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/composefs"
)

// imageDigestCommand returns `powernode image digest`.
func imageDigestCommand(app *cli.App) *cobra.Command {
	var source imageSource
	cmd := &cobra.Command{
		Use:   "digest SOURCE",
		Short: "Print the fs-verity digest that the image of a directory or a dump has",
		Long: `Prints the fs-verity digest of the image that "image create" would write, without writing it: 64
hexadecimal digits, as mkcomposefs --print-digest-only does.`,
		Example: `  powernode image digest /srv/root
  powernode image digest --from-file --min-version=1 root.dump`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, err := source.read(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			digest, err := composefs.Digest(root, source.version(cmd.Flags()))
			if err != nil {
				return err
			}
			return app.Print(map[string]any{"digest": digest}, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, digest)
				return err
			})
		},
	}
	source.prepare(cmd)
	return cmd
}
