package mount

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// stranger returns an empty file system that, as the last of the lower layers, keeps the overlay from
// looking for the origin of files in the upper.
//
// When a file is copied up, the overlay notes its origin in the lower layer beside it, as a file
// handle, and takes the inode that the handle leads to for the file's identity from then on
// (ovl_check_origin and ovl_get_inode in fs/overlayfs). The handle of EROFS is the inode's place in
// the image, and images have no UUID that would tell one from another: over another image the handle
// leads to another file, and the overlay then takes two files for one. Seen on Linux 6.18: the content
// of one under the name of the other, or ESTALE. Where two lower file systems have the same UUID,
// here none, the overlay can't tell which of them a handle is about, and leaves all alone
// (ovl_lower_uuid_ok). The price: a file gets another inode number when it is copied up.
//
// It is a ramfs, which never has a UUID and is in every kernel. A name in "/" that the image doesn't
// have is looked up there, too; nothing below is.
func stranger() (*Mount, error) { return New("ramfs", ReadOnly|NoSUID|NoDev|NoExec) }

// inheritedMark is on the root of an upper that knows several images, so that every later union over it
// is made accordingly, whoever makes it.
const inheritedMark = "trusted.powernode.inherited"

// inherited reports whether the upper of a union knows another image, and notes it there if the caller
// says so.
func (spec UnionSpec) inherited() (bool, error) {
	if spec.Upper == nil {
		return false, nil
	}
	defer runtime.KeepAlive(spec.Upper)
	fd := int(spec.Upper.Fd())
	_, err := unix.Fgetxattr(fd, inheritedMark, nil)
	switch {
	case err == nil:
		return true, nil
	case !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP):
		return false, &os.PathError{Op: "read the marks of", Path: spec.Upper.Name(), Err: err}
	case !spec.Inherited:
		return false, nil
	}
	if err := unix.Fsetxattr(fd, inheritedMark, []byte{'1'}, 0); err != nil {
		return false, fmt.Errorf("mark the upper %s: %w", spec.Upper.Name(), err)
	}
	return true, nil
}
