package operatorcli

import (
	"bytes"
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/tree"
)

// imageCommand returns `powernode image` with its subcommands.
func imageCommand(app *cli.App) *cobra.Command {
	return group("image", "Make composefs images and look into them",
		imageCreateCommand(app), imageDigestCommand(app), imageDumpCommand(app), imageListCommand(app))
}

// imageSource is where `image create` and `image digest` take a tree from: the flags have
// mkcomposefs's names and meanings.
type imageSource struct {
	fromFile bool
	scan     composefs.ScanOptions
	opts     composefs.Options
}

func (s *imageSource) flags(f *pflag.FlagSet) {
	f.BoolVar(&s.fromFile, "from-file", false, "SOURCE is a dump, not a directory; - is standard input")
	f.Uint32Var(&s.opts.MinVersion, "min-version", composefs.Default.MinVersion, "the version to write, unless the tree calls for a later one")
	f.Uint32Var(&s.opts.MaxVersion, "max-version", composefs.Default.MaxVersion, "the latest version to write (0 if only --min-version is given)")
	f.BoolVar(&s.scan.HardLinks, "hard-links", false, "keep the names of one file together, as seals do; mkcomposefs doesn't")
	f.BoolVar(&s.scan.UseEpoch, "use-epoch", false, "make all times the epoch")
	f.BoolVar(&s.scan.SkipDevices, "skip-devices", false, "leave out devices")
	f.BoolVar(&s.scan.SkipXattrs, "skip-xattrs", false, "leave out extended attributes")
	f.BoolVar(&s.scan.UserXattrs, "user-xattrs", false, "leave out extended attributes except user.*")
}

// prepare marks the flags that exclude each other.
func (s *imageSource) prepare(cmd *cobra.Command) {
	s.flags(cmd.Flags())
	cmd.MarkFlagsMutuallyExclusive("skip-xattrs", "user-xattrs")
	for _, name := range []string{"hard-links", "use-epoch", "skip-devices", "skip-xattrs", "user-xattrs"} {
		cmd.MarkFlagsMutuallyExclusive("from-file", name)
	}
}

// version returns the options for the image's version. As for mkcomposefs, one of the two flags
// alone makes the other 0.
func (s *imageSource) version(f *pflag.FlagSet) composefs.Options {
	opts := s.opts
	if f.Changed("min-version") && !f.Changed("max-version") {
		opts.MaxVersion = 0
	}
	return opts
}

// read reads the tree.
func (s *imageSource) read(ctx context.Context, app *cli.App, source string) (*tree.Node, error) {
	if !s.fromFile {
		if info, err := os.Stat(source); err == nil && !info.IsDir() {
			return nil, fault.New(fault.Refuse, fault.Input, "name a directory, or add --from-file if it is a dump", "read %s: it is no directory", source)
		}
		return composefs.FromDir(ctx, source, s.scan)
	}
	in, err := openInput(ctx, app, source)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return named(source, "name a dump that mkcomposefs or powernode image dump wrote")(composefs.ReadDump(in, composefs.Limits{}))
}

// readImage reads the tree of an image, "-" being standard input.
func readImage(ctx context.Context, app *cli.App, source string) (*tree.Node, error) {
	const hint = "name an image made by mkcomposefs or powernode image create"
	in, err := openInput(ctx, app, source)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if f, ok := in.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			return named(source, hint)(composefs.Read(f, info.Size()))
		}
	}
	image, err := io.ReadAll(io.LimitReader(in, composefs.ImageMax+1))
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "name an image that can be read", "read %s: %w", source, err)
	}
	return named(source, hint)(composefs.Read(bytes.NewReader(image), int64(len(image))))
}

// named says in an error which input it is about. Whatever is wrong with that is wrong with the
// input: nobody promised that it is good, as a seal does.
func named(source, remedy string) func(*tree.Node, error) (*tree.Node, error) {
	return func(root *tree.Node, err error) (*tree.Node, error) {
		if err == nil {
			return root, nil
		}
		hint := fault.HintOf(err)
		if hint == "" {
			hint = remedy
		}
		if source == "-" {
			source = "standard input"
		}
		return nil, fault.New(fault.Refuse, fault.Input, hint, "%s: %w", source, err)
	}
}

// openInput opens a file, or standard input as "-".
func openInput(ctx context.Context, app *cli.App, path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(&interruptible{ctx: ctx, r: app.In}), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "name a file that can be read, or - for standard input", "%w", err)
	}
	return f, nil
}

// interruptible ends a read that waits for standard input when the context ends. The read itself
// can't be ended; it stays behind in a program that is about to exit.
type interruptible struct {
	ctx context.Context
	r   io.Reader
	buf []byte
}

func (i *interruptible) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	if len(i.buf) < len(p) {
		i.buf = make([]byte, len(p))
	}
	done := make(chan result, 1)
	go func() {
		n, err := i.r.Read(i.buf[:len(p)])
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		copy(p, i.buf[:r.n])
		return r.n, r.err
	case <-i.ctx.Done():
		return 0, i.ctx.Err()
	}
}
