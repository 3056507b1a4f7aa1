// Package rootfs makes a proven root image ready to run at a place: the union with its writable
// layer, and what outlives a boot put into it.
//
// It promises that
//   - nothing is mounted that the store's root image, by its digest and at the level asked for,
//     doesn't prove;
//   - a root that can't run, or can't take a mount it needs, is told apart from a disk or a kernel
//     that fails: the error is an *Unfit, and another root may do;
//   - an error leaves nothing mounted;
//   - a disk that is full, read-only or damaged costs what would have been kept there, with a
//     remark, and not the boot;
//   - what is kept on the disk never points into a root image that another one has taken the place
//     of: a writable layer belongs to one root and to those that came beneath it live, is settled for
//     the one that boots, and stays aside where it can't be; local changes to /etc are whole files.
//
// A running system uses it too: to make the root that systemd goes on in after a soft reboot, to
// keep the files that a node is recognised by, and to see how full the writable layer is.
//
// It trusts package store for the objects, its caller for the choice of the root image, and the
// directory of record: who writes there owns the node.
package rootfs
