// Package device finds block devices in an initramfs, where there is no udev: by label, UUID,
// partition, serial number or path, and waits for those that appear late by the kernel's own events.
//
// It promises that a device is found by what the kernel and the disk say now, that waiting starts to
// listen before it looks, so that no device falls between, and that a device is called empty only
// after its head and its tail were read. It writes nothing, ever.
//
// It trusts nothing that lies on a disk: every read has a bound, every field is checked, and a name
// from a disk is a claim. Anybody who can attach a disk can give it any label; where that matters,
// name the device by its serial number or path. It trusts sysfs and events from the kernel.
package device
