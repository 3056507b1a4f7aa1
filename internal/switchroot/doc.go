// Package switchroot makes a mounted root ready to run in and makes it the process's "/".
//
// It promises that
//   - a root without an init that this machine can run is refused before anything is changed;
//   - nothing inside the new root, a symlink for one, leads a mount elsewhere: its paths are
//     resolved inside it, and mount points are never symlinks;
//   - /var's first content is copied whole or not at all, whenever the power goes;
//   - files of the old root are removed only where the old root is the machine's own initramfs
//     and the caller its first process, and never on another file system;
//   - the machine's own mount namespace is never changed by anyone but its first process.
//
// It needs /proc. It trusts the new root's content to be what was verified; starting its init is
// the caller's part.
package switchroot
