// Package kmod loads kernel modules in an initramfs, where there is no modprobe.
//
// It promises that a module's dependencies are in the kernel before it is, that what is there
// already, built in, or without its hardware is no error, and that an error names the module, what
// was being done with it and what a person can do. Coldplug loads what the machine's devices ask
// for; Follow goes on with devices that appear later.
//
// It trusts the modules directory: who wrote it runs code in the kernel anyway. All the same it
// reads nothing outside of that directory, and its parsers bound what they read. Whether a module's
// signature counts is the kernel's decision.
package kmod
