package operatorcli

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/modulebuild"
)

// moduleBuildCommand returns `powernode module build`.
func moduleBuildCommand(app *cli.App) *cobra.Command {
	var o modulebuild.Options
	var manifest, epoch string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "build --manifest FILE --version VERSION --layout DIR",
		Short: "Build a module from Debian packages or from a directory",
		Long: `Builds a module into an OCI layout, ready for "powernode module publish".

With --from-dir, the module's files are those of a directory. Otherwise they come from the Debian
packages in the manifest's package_spec: with --base, those of them that the base lacks, without,
a whole system.`,
		Example: `  powernode module build --manifest system-base/manifest.yaml --version 12.1 --layout out/system-base
  powernode module build --manifest nginx/manifest.yaml --version 1.22 --base out/system-base --layout out/nginx
  powernode module build --manifest nginx-site/manifest.yaml --version 1 --from-dir nginx-site/root --layout out/nginx-site`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Manifest, err = readManifest(manifest); err != nil {
				return err
			}
			if o.Epoch, err = parseEpoch(epoch, app.Getenv("SOURCE_DATE_EPOCH")); err != nil {
				return err
			}
			if verbose {
				o.Log = app.Err
			}
			progress := app.NewProgress()
			var part *cli.Part
			o.Stage = func(what string) {
				if part != nil {
					part.Done(nil)
				}
				part = progress.Start(what, 0)
			}
			result, err := modulebuild.Build(cmd.Context(), o)
			if part != nil {
				part.Done(err)
			}
			progress.Close()
			if err != nil {
				return err
			}
			return app.Print(result, func(w io.Writer) error { return printBuilt(w, result) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&manifest, "manifest", "", "the module's manifest.yaml")
	f.StringVar(&o.Version, "version", "", "the module's version")
	f.StringVar(&o.Layout, "layout", "", "the directory for the OCI layout")
	f.BoolVar(&o.Replace, "force", false, "replace a layout that is there already")
	f.StringVar(&o.FromDir, "from-dir", "", "the directory that holds the module's files")
	f.BoolVar(&o.KeepAttributes, "keep-attributes", false, "take owners, modes, times and xattrs from --from-dir as they are")
	f.StringArrayVar(&o.Bases, "base", nil, "the OCI layout of a module to build upon, one that you built or verified (its signatures are not checked); may be repeated, the lowest first")
	f.StringVar(&o.Suite, "suite", modulebuild.DefaultSuite, "the Debian suite")
	f.StringVar(&o.Variant, "variant", modulebuild.DefaultVariant, "the packages that a whole system begins with, in mmdebstrap's words")
	f.StringArrayVar(&o.Mirrors, "mirror", nil, "a Debian mirror's URL, or a line of a sources.list; may be repeated (default: this machine's)")
	f.StringVar(&o.Architecture, "arch", "", "the architecture: amd64, arm64, or all for files only (default: what the files are for)")
	f.StringVar(&epoch, "source-date-epoch", "", "the latest time for files, in seconds since 1970 (default: SOURCE_DATE_EPOCH)")
	f.StringVar(&o.WorkDir, "work-dir", "", "where to unpack packages (default: /var/tmp)")
	f.BoolVarP(&verbose, "verbose", "v", false, "print what apt and dpkg say")
	for _, name := range []string{"manifest", "version", "layout"} {
		_ = cmd.MarkFlagRequired(name)
	}
	_ = cmd.MarkFlagFilename("manifest", "yaml", "yml")
	for _, name := range []string{"layout", "from-dir", "base", "work-dir"} {
		_ = cmd.MarkFlagDirname(name)
	}
	_ = cmd.RegisterFlagCompletionFunc("variant", cobra.FixedCompletions(modulebuild.Variants, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// readManifest reads a manifest.yaml, bounded.
func readManifest(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "name the module's manifest.yaml with --manifest", "read the manifest: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read from
	// One byte more than allowed: the parser says that it is too large.
	b, err := io.ReadAll(io.LimitReader(f, module.ManifestMax+1))
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "name the module's manifest.yaml with --manifest", "read the manifest: %w", err)
	}
	return b, nil
}

// parseEpoch reads the flag, else the environment, else gives the zero time.
func parseEpoch(flag, env string) (time.Time, error) {
	text := flag
	if text == "" {
		text = env
	}
	if text == "" {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 || seconds > 1<<40 {
		return time.Time{}, fault.New(fault.Refuse, fault.Input, "write seconds since 1970, such as $(git log -1 --format=%ct)", "the epoch %.60q is not a number of seconds", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

func printBuilt(w io.Writer, r *modulebuild.Result) error {
	pairs := [][2]string{
		{"module", r.Name},
		{"version", r.Version},
		{"architecture", r.Architecture},
		{"layout", r.Layout},
		{"digest", r.Digest},
		{"entries", strconv.Itoa(r.Entries)},
		{"size", fmt.Sprintf("%s, %s compressed", cli.Bytes(r.Bytes), cli.Bytes(uint64(r.LayerBytes)))},
		{"newest file", r.Epoch.Format(time.RFC3339)},
	}
	if len(r.Packages) > 0 {
		pairs = append(pairs, [2]string{"packages", strconv.Itoa(len(r.Packages))})
	}
	for _, list := range []struct {
		name  string
		lines []string
	}{{"account", r.Users}, {"removed from the base", r.Removed}, {"left out (socket)", r.Skipped}} {
		for _, line := range list.lines {
			pairs = append(pairs, [2]string{list.name, line})
		}
	}
	return cli.Pairs(w, pairs)
}
