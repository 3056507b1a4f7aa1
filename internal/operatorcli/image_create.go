package operatorcli

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// createdImage is what `image create --output json` prints.
type createdImage struct {
	Image  string          `json:"image"`
	Size   uint64          `json:"size"`
	Digest fsverity.Digest `json:"digest"`
}

// imageCreateCommand returns `powernode image create`.
func imageCreateCommand(app *cli.App) *cobra.Command {
	var source imageSource
	cmd := &cobra.Command{
		Use:   "create SOURCE IMAGE",
		Short: "Write the composefs image of a directory or a dump",
		Long: `Writes the composefs image of a directory or, with --from-file, of a dump: the same bytes as
mkcomposefs writes. IMAGE appears whole or not at all; - is standard output.`,
		Example: `  powernode image create /srv/root root.cfs
  powernode image create --from-file root.dump --min-version=1 root.cfs`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, err := source.read(cmd.Context(), app, args[0])
			if err != nil {
				return err
			}
			h := fsverity.NewHasher()
			write := func(w io.Writer) error {
				return composefs.Write(io.MultiWriter(w, h), root, source.version(cmd.Flags()))
			}
			if args[1] == "-" {
				return writeImageOut(app, write)
			}
			if err := writeImageFile(args[1], write); err != nil {
				return err
			}
			doc := createdImage{args[1], h.Size(), h.Sum()}
			return app.Print(doc, func(w io.Writer) error {
				return cli.Pairs(w, [][2]string{{"image", doc.Image}, {"size", strconv.FormatUint(doc.Size, 10)}, {"digest", doc.Digest.String()}})
			})
		},
	}
	source.prepare(cmd)
	return cmd
}

// writeImageOut writes an image to standard output, unless a person would have to read it.
func writeImageOut(app *cli.App, write func(io.Writer) error) error {
	if f, ok := app.Out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return fault.New(fault.Refuse, fault.Input, "redirect it, or name a file", "standard output is a terminal")
	}
	return write(app.Out)
}

// writeImageFile writes an image beside where it goes, and then gives it its name.
func writeImageFile(path string, write func(io.Writer) error) (err error) {
	const hint = "name a file in a directory that can be written to"
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fault.New(fault.Refuse, fault.Input, hint, "write image %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the error that led here counts
		}
	}()
	if err = errors.Join(write(f), f.Chmod(0o644), f.Close()); err != nil {
		if fault.KindOf(err) == fault.Refuse {
			return err
		}
		return fault.New(fault.Retry, fault.Mount, "make room, or name a file elsewhere", "%w", err)
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return fault.New(fault.Refuse, fault.Input, hint, "write image %s: %w", path, err)
	}
	return nil
}
