// Package persist finds, or prepares, and mounts the file system that outlives a boot.
//
// It promises that a node comes up: where there is no such disk, or none that can be used, the
// result is a file system in memory with a remark that says so; where the disk can only be read, it
// is mounted so, with a remark. Nothing is ever written to a device that isn't provably empty, but
// for the mount itself; and a preparation that was cut off at any instruction is either known to be
// unfinished at the next boot, and done again, or was complete.
//
// A device is prepared by writing a file system that mkfs.ext4 made when this program was built (the
// seed: see mkseed), with a UUID of its own, which then grows while it is mounted. An initramfs
// needs no mkfs for that.
//
// It trusts the kernel's file system drivers with what is on the disk, as every mount does. It trusts
// nothing that it reads there itself: what the file system claims to be only chooses the driver.
// Whoever can write to the disk can take the node's place; that is the platform's and the trust
// policy's to notice.
package persist
