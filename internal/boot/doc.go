// Package boot takes a machine from power-on to the init of its composed root: identify, enroll,
// fetch, verify, compose, mount, hand over.
//
// It promises that nothing is mounted as root that was not verified under the local trust policy
// in this very boot, that each stage says on the console what it did or what a person can do,
// and that a boot which fails has switched to nothing. A stage that ran before is run again and
// finds its work done: whatever interrupts a boot, the next one starts from what is on the disk.
//
// It trusts the trust policy that lies beside it in the initramfs, the kernel, and the platform
// for the list of modules; not for what is in them.
package boot
