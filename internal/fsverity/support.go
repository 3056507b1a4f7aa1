package fsverity

import (
	"io/fs"
	"os"
)

// support is what is known about the running kernel.
type support uint8

const (
	unknown support = iota
	present
	absent
)

// kernelSupport finds out whether the running kernel has fs-verity. The kernel has no call that
// tells; it lists the features that its filesystems were built with.
func kernelSupport() support { return supportIn(os.DirFS("/")) }

// supportIn judges by /sys and /proc below root. A filesystem that lists its features but not
// verity was built without; one that isn't there proves nothing.
func supportIn(root fs.FS) support {
	exists := func(name string) bool {
		_, err := fs.Stat(root, name)
		return err == nil
	}
	listed := false
	// proc/sys/fs/verity exists where the kernel has fs-verity's builtin signatures as well.
	if exists("proc/sys/fs/verity") {
		return present
	}
	for _, filesystem := range []string{"ext4", "f2fs"} {
		features := "sys/fs/" + filesystem + "/features"
		if exists(features + "/verity") {
			return present
		}
		listed = listed || exists(features)
	}
	if listed {
		return absent
	}
	return unknown
}
