package services

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ProbeNode finds out what of a Node the running kernel says. root is where /sys and /proc are below, "/" on a node. agent is the path of the
// agent's program in the running system, and privileged what the trust policy says.
func ProbeNode(root, agent string, privileged []string) Node {
	return Node{
		Agent: agent, Privileged: privileged,
		// Documentation/admin-guide/LSM/apparmor.rst; "N" where it is built in and switched off.
		AppArmor: startsWith(root, "sys/module/apparmor/parameters/enabled", "Y"),
		Profiles: profiles(root),
		// The kernel makes the place to mount selinuxfs where SELinux is switched on (security/selinux/selinuxfs.c).
		SELinux:  exists(root, "sys/fs/selinux"),
		NoEgress: noEgress(root, tryFilter),
	}
}

// profilesMax bounds the kernel's list of profiles, in bytes.
const profilesMax = 4 << 20

// profiles returns the profiles of AppArmor that are loaded; nil where securityfs doesn't say. Its lines are "NAME (MODE)"
// (security/apparmor/apparmorfs.c).
func profiles(root string) []string {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return nil
	}
	defer dir.Close()
	text, err := readWhole(dir, "sys/kernel/security/apparmor/profiles", profilesMax)
	if err != nil {
		return nil
	}
	names := []string{}
	for line := range strings.Lines(string(text)) {
		if i := strings.LastIndex(line, " ("); i > 0 {
			names = append(names, line[:i])
		}
	}
	return names
}

func read(root, name string) string {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return ""
	}
	defer dir.Close()
	text, err := fs.ReadFile(dir.FS(), filepath.Clean(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func startsWith(root, name, start string) bool { return strings.HasPrefix(read(root, name), start) }

func exists(root, name string) bool {
	_, err := os.Lstat(filepath.Join(root, name))
	return err == nil
}
