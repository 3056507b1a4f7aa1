package delta

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/tree"
)

// staged is the name under which a file is made aside before it gets its place in the upper, whole.
const staged = "settling"

// attributes are what a file has beside its content.
type attributes struct {
	mode         uint32
	uid, gid     int
	atime, mtime unix.Timespec
	xattrs       []tree.Xattr
}

// overlayMark begins the names of overlayfs's marks.
const overlayMark = "trusted.overlay."

// protection is the mark of files that are immutable or append-only in the union; it isn't about the image.
const protection = overlayMark + "protattr"

// attributesOf reads those of a file of the upper, without the marks.
func attributesOf(f *os.File) (attributes, error) {
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		return attributes{}, err
	}
	a := attributes{mode: s.Mode & 0o7777, uid: int(s.Uid), gid: int(s.Gid), atime: s.Atim, mtime: s.Mtim}
	list, value := make([]byte, 64<<10), make([]byte, 64<<10) // XATTR_LIST_MAX, XATTR_SIZE_MAX
	n, err := unix.Flistxattr(int(f.Fd()), list)
	if errors.Is(err, unix.ENOTSUP) {
		return a, nil
	}
	if err != nil {
		return a, err
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, overlayMark) && name != protection {
			continue
		}
		size, err := unix.Fgetxattr(int(f.Fd()), name, value)
		if err != nil {
			return a, fmt.Errorf("read the attribute %s: %w", name, err)
		}
		a.xattrs = append(a.xattrs, tree.Xattr{Name: name, Value: bytes.Clone(value[:size])})
	}
	return a, nil
}

func attributesOfNode(n *tree.Node) (attributes, error) {
	for _, x := range n.Xattrs {
		if strings.HasPrefix(x.Name, overlayMark) {
			return attributes{}, errTrouble{fmt.Errorf("the image's file has the attribute %s, which would be taken for overlayfs's own", x.Name)}
		}
	}
	t := timespec(n.Mtime)
	return attributes{mode: uint32(n.Mode), uid: int(n.UID), gid: int(n.GID), atime: t, mtime: t, xattrs: n.Xattrs}, nil
}

func timespec(t tree.Time) unix.Timespec { return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)} }

// sweep removes what a kill left aside.
func (a *offlineActor) sweep() error {
	err := a.Aside.Root().RemoveAll(staged)
	return a.Aside.Diagnose(err)
}

// stage makes an image's file aside; a directory is made empty.
func (a *offlineActor) stage(n *tree.Node) error {
	like, err := attributesOfNode(n)
	if err != nil {
		return err
	}
	if n.Kind == tree.Regular {
		content, err := a.open(n, n.Digest)
		if err != nil {
			return err
		}
		defer content.Close()
		return a.stageFile(content, like)
	}
	err = a.upper.Step("settle-whole:stage", func() error { return a.stageSpecial(n) })
	if err != nil {
		return a.upper.Diagnose(err)
	}
	return a.upper.Diagnose(a.dress(like, n.Kind == tree.Symlink))
}

func (a *offlineActor) stageSpecial(n *tree.Node) error {
	at := int(a.Aside.File().Fd())
	if err := a.sweep(); err != nil {
		return err
	}
	switch n.Kind {
	case tree.Directory:
		return unix.Mkdirat(at, staged, 0o700)
	case tree.Symlink:
		return unix.Symlinkat(n.Target, at, staged)
	case tree.CharDevice:
		return unix.Mknodat(at, staged, unix.S_IFCHR|0o600, int(n.Rdev))
	case tree.BlockDevice:
		return unix.Mknodat(at, staged, unix.S_IFBLK|0o600, int(n.Rdev))
	case tree.FIFO:
		return unix.Mknodat(at, staged, unix.S_IFIFO|0o600, 0)
	case tree.Socket:
		return unix.Mknodat(at, staged, unix.S_IFSOCK|0o600, 0)
	case tree.Regular:
	}
	return fmt.Errorf("an image's file of kind %d", n.Kind)
}

// stageFile makes a regular file aside and puts it on the disk.
func (a *offlineActor) stageFile(content *source, like attributes) error {
	err := a.sweep()
	if err != nil {
		return err
	}
	f, err := a.Aside.Root().OpenFile(staged, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return a.Aside.Diagnose(err)
	}
	defer f.Close()
	err = a.upper.Step("settle-file:stage", func() error { return a.copy(f, content) })
	if err == nil {
		err = content.check()
	}
	if err == nil {
		err = a.dress(like, false)
	}
	if err == nil {
		err = a.upper.Step("settle-file:sync", f.Sync)
	}
	return a.upper.Diagnose(err)
}

// dress gives what is staged its attributes. The owner comes first: it takes set-user-ID bits and
// capabilities away. Writing into it is over.
func (a *offlineActor) dress(like attributes, link bool) error {
	path := procPath(a.Aside.File(), staged)
	if err := os.Lchown(path, like.uid, like.gid); err != nil {
		return err
	}
	if !link {
		if err := unix.Chmod(path, like.mode); err != nil {
			return err
		}
	}
	for _, x := range like.xattrs {
		if err := unix.Lsetxattr(path, x.Name, x.Value, 0); err != nil {
			return &fs.PathError{Op: "set the attribute " + x.Name, Path: staged, Err: err}
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{like.atime, like.mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

// install moves what is staged to its place in the upper, at once.
func (a *offlineActor) install(what, dir, name string, flags uint) error {
	to, err := openDirAt(a.upper.File(), below(dir))
	if err != nil {
		return err
	}
	defer to.Close()
	return a.upper.Step(what+":install", func() error {
		return a.upper.Diagnose(unix.Renameat2(int(a.Aside.File().Fd()), staged, int(to.Fd()), name, flags))
	})
}
