package aftercare

import (
	"path"
	"slices"
	"strings"
)

// LinkerCache is what ldconfig writes.
const LinkerCache = "/etc/ld.so.cache"

// derived are the files that don't lie with kernel modules: ldconfig's, and what systemd-update-done.service(8) writes, which is when
// /etc and /var were last brought in step with /usr.
var derived = []string{LinkerCache, "/var/cache/ldconfig/aux-cache", "/etc/.updated", "/var/.updated"}

// Derived reports whether the content of an absolute path follows from the rest of the root, so that it is no local
// change where a program wrote it: the package documentation says what that means. It may be removed at any time at which
// the program is run again.
func Derived(name string) bool {
	if slices.Contains(derived, name) {
		return true
	}
	dir, file := path.Split(name)
	up, parent := path.Split(path.Dir(path.Clean(dir)))
	if parent != "modules" || up != "/usr/lib/" && up != "/lib/" {
		return false
	}
	// What depmod(8) writes; modules.order, modules.builtin and modules.builtin.modinfo come with the kernel.
	switch file {
	case "modules.builtin.bin", "modules.builtin.alias.bin":
		return true
	case "modules.order", "modules.builtin", "modules.builtin.modinfo":
		return false
	}
	return strings.HasPrefix(file, "modules.")
}
