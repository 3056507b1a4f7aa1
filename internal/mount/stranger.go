package mount

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
