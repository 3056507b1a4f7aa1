// Package mount is the edge to the kernel's mounts: it makes the union that becomes a node's root,
// reads back what is mounted, and takes down what it made.
//
// It promises that
//   - a union is made only over a root image whose digest was checked on the very descriptor that
//     is mounted, at the integrity level that was asked for and never at a weaker one;
//   - what it makes is detached, unseen by any path, until the caller attaches it; closing it
//     instead leaves nothing behind, no loop device either;
//   - it unmounts only what the kernel's own tables prove to be one of our unions;
//   - an error says what was being mounted and what the kernel had to say about it.
//
// It needs Linux 6.5 (overlay with data-only layers), /proc mounted (layers are passed as
// descriptors or as /proc/self/fd paths, so that a path of any length works and no name is looked
// up twice), and CAP_SYS_ADMIN. What a kernel can do is probed, never read off its version.
//
// It trusts its caller for two things: at level Checked, that every object was re-hashed; and that
// one process at a time works on one upper directory.
package mount
