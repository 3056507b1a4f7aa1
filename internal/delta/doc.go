// Package delta looks into the upper of a union: what it holds that the root image does not, where that lies
// over something that another root image changes, and what must be done so that it means the same over that one.
//
// An upper refers to the image below it in four ways (Documentation/filesystems/overlayfs.rst of Linux):
//
//   - A file of which only metadata was changed is a metacopy: its content is that of the image's file. Over
//     other content, opening it gives EIO where the kernel enforces digests, and else that other content.
//   - A renamed directory has a redirect: what it doesn't hold itself is looked up at the old path.
//   - A directory that was made here is opaque: what a later image has at its path isn't seen.
//   - A file that was copied up has an origin, the number of the image's inode. The kernel finds the
//     file's inode in memory by it. In another image that number is another file's, which then shows this
//     one's content (seen on Linux 6.18: of 200 such files, each). All images of ours have the same, empty UUID,
//     so that the kernel can't tell them apart.
//
// Scan, Conflicts and Settle read and decide; ActLive and ActOffline do what Settle decided, and Live.Mend what came too late for that. The package promises that an
// upper which a kill left anywhere in an act still means the same over the image that it was used over: the
// content comes first, then the mark that refers to the image goes.
//
// It trusts the trees and the object store, and nothing of the upper: names, depths, sizes and marks are those
// of whoever could write there. It follows no link and enters no other file system. Files may come and go
// while it looks; what a live union's users change after a scan isn't in its result.
package delta
