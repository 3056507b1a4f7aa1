package composefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// ScanOptions say what FromDir takes over. The zero value is what mkcomposefs DIR does; the first
// four are its options of the same names.
type ScanOptions struct {
	UseEpoch    bool // all times are the epoch
	SkipDevices bool
	SkipXattrs  bool
	UserXattrs  bool // only attributes "user.…"
	// HardLinks keeps the names of one file together. mkcomposefs makes files of their own of them,
	// so that the same directory has two images; seals are made from layers, where links are kept.
	HardLinks bool
	// Content takes in the content of a file that is too large to lie in the image, and returns its
	// digest and size; by default it computes them. It is called from several goroutines.
	Content func(f *os.File) (fsverity.Digest, uint64, error)
}

// FromDir reads the tree below a directory, with the digests of the files that don't lie in the image.
func FromDir(ctx context.Context, dir string, opts ScanOptions) (*tree.Node, error) {
	f, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "name a directory that can be read", "scan %s: %w", dir, err)
	}
	defer f.Close()
	s := scanner{opts: opts, files: make(map[fileID]*tree.Node)}
	if opts.Content == nil {
		s.opts.Content = s.sum
	}
	s.group, s.ctx = errgroup.WithContext(ctx)
	s.group.SetLimit(runtime.GOMAXPROCS(0))
	root, err := s.root(f)
	if hashErr := s.group.Wait(); hashErr != nil {
		// The first error cancels the context, by which the walk then ends.
		err = hashErr
	}
	if err != nil {
		return nil, fmt.Errorf("scan %s: %w", dir, err)
	}
	return root, nil
}

type scanner struct {
	opts  ScanOptions
	ctx   context.Context
	group *errgroup.Group
	files map[fileID]*tree.Node
	sums  sync.Pool // of *sum
}

// sum is what computing a digest needs, kept for the next file.
type sum struct {
	hasher fsverity.Hasher
	buf    [128 << 10]byte
}

// sum computes a file's digest: one file on one core, because there are many, unless it is large.
func (s *scanner) sum(f *os.File) (fsverity.Digest, uint64, error) {
	const large = 8 << 20
	if info, err := f.Stat(); err != nil || info.Size() >= large {
		return fsverity.SumFile(f)
	}
	w, ok := s.sums.Get().(*sum)
	if !ok {
		w = new(sum)
	}
	defer s.sums.Put(w)
	w.hasher = fsverity.Hasher{}
	for {
		n, err := f.Read(w.buf[:])
		_, _ = w.hasher.Write(w.buf[:n]) // never fails
		if errors.Is(err, io.EOF) {
			return w.hasher.Sum(), w.hasher.Size(), nil
		}
		if err != nil {
			return fsverity.Digest{}, 0, err
		}
	}
}

// fileID tells files apart.
type fileID struct{ dev, ino uint64 }

func (s *scanner) root(f *os.File) (*tree.Node, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	n, err := s.node(f, ".", &st)
	if err != nil {
		return nil, err
	}
	return n, s.dir(f, n, "", 1)
}

// dir reads the entries of a directory.
func (s *scanner) dir(f *os.File, n *tree.Node, path string, depth int) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if depth > depthLimit {
		return fmt.Errorf("/%s: directories nest deeper than %d", path, depthLimit)
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		child := strings.TrimPrefix(path+"/"+name, "/")
		if err := s.entry(f, n, name, child, depth); err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) entry(dir *os.File, parent *tree.Node, name, path string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("/%s: %w", path, err)
	}
	kind := st.Mode & unix.S_IFMT
	if s.opts.SkipDevices && (kind == unix.S_IFBLK || kind == unix.S_IFCHR) {
		return nil
	}
	id := fileID{st.Dev, st.Ino}
	linked := s.opts.HardLinks && st.Nlink > 1 && kind != unix.S_IFDIR
	if n := s.files[id]; linked && n != nil {
		parent.SetChild(name, n)
		return nil
	}
	n, err := s.node(dir, name, &st)
	if err != nil {
		return fmt.Errorf("/%s: %w", path, err)
	}
	parent.SetChild(name, n)
	if linked {
		s.files[id] = n
	}
	switch n.Kind {
	case tree.Regular:
		if n.Size = uint64(st.Size); n.Size > 0 {
			err = s.file(dir, n, name, path)
		}
	case tree.Symlink:
		n.Target, err = readlink(dir, name)
	case tree.Directory:
		var f *os.File
		if f, err = openAt(dir, name, unix.O_DIRECTORY); err == nil {
			err = s.dir(f, n, path, depth+1)
			f.Close()
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("/%s: %w", path, err)
	}
	return nil
}

// node returns a node with what all kinds have.
func (s *scanner) node(dir *os.File, name string, st *unix.Stat_t) (*tree.Node, error) {
	kind, ok := kindOf(uint16(st.Mode))
	if !ok {
		return nil, fmt.Errorf("mode %#o has no known file type", st.Mode)
	}
	n := &tree.Node{Kind: kind, Mode: uint16(st.Mode) & 0o7777, UID: st.Uid, GID: st.Gid}
	if kind == tree.CharDevice || kind == tree.BlockDevice {
		n.Rdev = uint32(st.Rdev)
	}
	if !s.opts.UseEpoch {
		n.Mtime = tree.Time{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)}
	}
	if s.opts.SkipXattrs {
		return n, nil
	}
	return n, s.xattrs(dir, name, n)
}

// file reads the content of a regular file that isn't empty.
func (s *scanner) file(dir *os.File, n *tree.Node, name, path string) error {
	f, err := openAt(dir, name, 0)
	if err != nil {
		return err
	}
	if n.Size <= tree.InlineMax {
		defer f.Close()
		n.Inline, err = io.ReadAll(io.LimitReader(f, tree.InlineMax+1))
		return unchanged(err, n.Size, uint64(len(n.Inline)))
	}
	s.group.Go(func() error {
		defer f.Close()
		if err := s.ctx.Err(); err != nil {
			return err
		}
		d, size, err := s.opts.Content(f)
		if err = unchanged(err, n.Size, size); err != nil {
			return fmt.Errorf("/%s: %w", path, err)
		}
		n.Digest = d
		return nil
	})
	return nil
}

// unchanged refuses content that isn't of the size that its file had a moment ago.
func unchanged(err error, want, got uint64) error {
	if err == nil && got != want || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.New(fault.Retry, fault.Input, "scan a directory that nobody writes to", "the file changed while it was read")
	}
	return err
}

func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func readlink(dir *os.File, name string) (string, error) {
	buf := make([]byte, pathLimit+1)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	return string(buf[:max(n, 0)]), err
}
