package change

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
)

// AtBoot runs in a root that was made at dir, of that root image, what the image leaves to a program, as a live change to it
// would: a generation behaves the same whichever way it came. It comes before anything else runs there. The report says
// what failed; the error, that nobody knows what was to be done. own says that what programs left there, if they did, they
// made of this very image: then a root that has it isn't looked at more closely.
func AtBoot(ctx context.Context, st *store.Store, dir string, image fsverity.Digest, own bool) (aftercare.Report, error) {
	kernel := kernelRelease()
	if own && complete(dir, kernel) {
		return aftercare.Report{}, nil
	}
	root, err := ReadTree(st, image)
	if err != nil {
		return aftercare.Report{}, fmt.Errorf("see what the root image leaves to ldconfig and depmod: %w", err)
	}
	programs := aftercare.AtBoot(root, kernel, aftercare.Contents(st))
	return (&aftercare.Runner{Root: dir}).Programs(ctx, programs), nil
}

// complete reports, without a look at the whole image, whether a root surely needs no program: it has the linker's cache,
// and no modules of the kernel.
func complete(dir, kernel string) bool {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false
	}
	defer root.Close()
	if _, err = root.Stat(strings.TrimPrefix(aftercare.LinkerCache, "/")); err != nil {
		return false
	}
	_, err = root.Stat(path.Join("lib/modules", kernel))
	return kernel != "" && errors.Is(err, fs.ErrNotExist)
}
