// Package rootfs makes a proven root image ready to run at a place: the union with its writable
// layer, and what outlives a boot put into it.
//
// It promises that
//   - nothing is mounted that the store's root image, by its digest and at the level asked for,
//     doesn't prove;
//   - a root that can't run, or can't take a mount it needs, is told apart from a disk or a kernel
//     that fails: the error is an *Unfit, and another root may do;
//   - an error leaves nothing mounted.
//
// It trusts package store for the objects and its caller for the choice of the root image.
package rootfs
