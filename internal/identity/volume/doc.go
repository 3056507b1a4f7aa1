// Package volume finds a node's identity on volumes that come with the machine: an identity.cfg on the
// boot partition, and the user-data of a NoCloud volume ("cidata"), which a host or a person attaches.
//
// FAT and ISO 9660 are read by this package itself, from the device, which is opened for reading: the
// kernel needs no driver for them, and a damaged or hostile volume meets code that can't do more than
// fail. It promises that whatever is on a volume, reading it costs a bounded time and memory, that only
// regular files of the root directory are read, and that nothing is written. Other boot partitions
// (ext4, xfs, btrfs) are mounted by the kernel, read-only, without devices and programs, and in no
// directory: nobody else sees the mount.
//
// It trusts who can attach a volume to the machine as far as an identity goes: a node that knows its
// platform otherwise doesn't ask (package identity), and what a node runs is proven by its trust policy.
package volume
