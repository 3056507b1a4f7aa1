// Package fsverity computes, enables and measures fs-verity digests: SHA-256, 4096-byte Merkle
// blocks, no salt, the only parameters that composefs uses.
//
// It promises that a digest computed here equals the kernel's FS_IOC_MEASURE_VERITY of the same
// bytes (Documentation/filesystems/fsverity.rst, "File digest computation"). It trusts nothing.
package fsverity
