// Package boot takes a machine from power-on to the init of its composed root: prepare, modules,
// network, persist, identify, enroll, fetch, verify, compose, mount, hand over.
//
// It promises that nothing is mounted as root that was not verified under the local trust policy
// in this very boot, that each stage says on the console what it did or what a person can do,
// and that a boot which fails has switched to nothing. A generation that isn't known to be good is
// counted on the disk before it is used; whatever fails before the hand-over gives way to
// what was good before it. A stage that ran before is run again and finds its work done: whatever
// interrupts a boot, the next one starts from what is on the disk. The machine's first process never
// ends: where nothing is left to boot, it waits in the recovery environment and keeps trying.
//
// It trusts the trust policy and the settings that lie beside it in the initramfs, the kernel and its
// command line, except that this can't weaken the trust policy, and the platform for the list of
// modules; not for what is in them.
package boot
