// Package bootconfig says how a boot is to go: what boot.yaml of the initramfs and the powernode.*
// parameters of the kernel command line ask for. It is pure: text in, settings and remarks out.
//
// It promises that a setting of the command line wins over the file's, that neither can lower the
// integrity level that the other asks for, and that what can't be read is said: a malformed
// parameter is a remark, and the default counts, where that is harmless, and an error where it would
// weaken the boot. The file is built into the initramfs by the same people as the trust policy, so
// any mistake in it is an error: it is found the first time that the initramfs is booted.
//
// It trusts neither text: both are bounded, and every value is checked.
package bootconfig
