// Package live changes the root image of a running system: under "/" the top-level directories that
// differ are replaced, one atomic step each, by those of another union over the same writable layer.
//
// It promises that
//   - whoever opens, stats, lists, executes or maps a path while it works finds it, and within one
//     top-level directory finds the old tree or the new one, never some of both;
//   - a file that is open stays the file it is, and what is written to it isn't lost: the upper
//     directory stays the same one, so that a file in it has one content for the old tree and the new. But it has
//     an inode in each: see below;
//   - a call that fails leaves the system on the root it was on, and one that is killed leaves a
//     journal in the directory of this boot, by which Recover brings it back there, or, once
//     the caller has made the new generation the current one, wholly to the new one;
//   - what is mounted is read from the kernel's tables, not from notes;
//   - mounts don't pile up: after each change there is at most one mount of ours at each top-level
//     directory, and a union of an earlier generation lives as long as someone has it open.
//
// How. The union of the new root image is made with the upper directory of the running one and a work
// directory of its own. Of each directory to be replaced a subtree of it is taken, the mounts that lie
// inside of the old directory are mounted inside of it, too, and only then it is put in place: on top
// of the directory the first time, after that beneath what is there, which is then unmounted lazily.
// A persistent /etc is a layer of its own (package rootfs): a new layer with the same upper over the
// new image's /etc takes the old one's place in the same way.
//
// Two unions with one upper are what the overlay's documentation calls undefined. What that means,
// from its code and seen on Linux 6.12 and 6.18, and what is done about it:
//   - A union keeps what it knows of a name. One that has seen that a directory isn't in the upper
//     will not see it appear there, and can't make it. So the top-level directories are brought into
//     the upper before the new union looks, and the old union is out of everybody's way at once. What
//     is left: a process that works on in the old tree (by its working directory, an open directory,
//     a mount namespace with a copy) and there makes the first change ever in some directory makes a
//     change that the new tree may not see until it is made anew. Check names such namespaces.
//   - A file that was copied up remembers its origin by its place in the image it came from. Unions
//     over an upper that knows several images are made not to follow that (mount.UnionSpec.Inherited).
//   - A directory made in "/" is marked as opaque, which would hide the one of the same name in a later
//     image. The mark is taken away.
//   - A file of which only the mode was changed, and a directory that was renamed, refer to the image
//     beneath. They have to be settled before; package delta finds them. Place.BeforeReplace is the moment for that: all else
//     is ready. What is changed between that and Result.Ended through the old union is the caller's to look for (delta.Mend).
//
// Other mount namespaces. One that gets its mounts from ours and has nothing of its own there sees the new
// trees at once (PrivateTmp=). One that sees a directory by mounts of its own, as the sandboxes of units do
// (ProtectSystem=, ReadOnlyPaths=, InaccessiblePaths=), keeps the old tree until its processes are
// restarted: a new tree on top of such a sandbox would take it away (seen: /usr could be written below
// ProtectSystem=), so its mounts are made private before. Check and Swap say which those are. Swap looks
// again afterwards, for those that were just being made. Namespaces without a process, which only a bind mount of
// nsfs or an open descriptor keeps, aren't looked at: nothing lists them all. In the
// rare case that something is mounted inside of a mount inside of a directory (/usr/local/x in a mount at
// /usr/local), namespaces of the first sort may keep the old tree of that directory, too.
//
// Locks, Unix sockets and FIFOs are the inode's, and don't cross over: a lock that is held in the old tree can be had in the new one, a
// socket that was bound in the old one refuses, and the two ends of a FIFO don't meet (seen on Linux 6.18). Ties finds who holds
// such a thing; it is the caller's to let them end first, or to leave the change to the next boot.
//
// Whoever watches a directory or file (inotify) watches the old one; daemons are to be told as after any
// update. The old union is dissolved when its last user has closed it.
//
// What can't be done live: files in "/" itself, and a name in "/" that becomes a directory or stops
// being one. A top-level directory that the new image doesn't have stays as an empty one until the
// next boot, so that no mark of ours that it was removed can hide it in a later image.
//
// It trusts package store for the images and objects, its caller to be alone with the mounts (the lock
// for changes) and to settle the upper, and the directory of this boot, which only root may
// write to.
package live
