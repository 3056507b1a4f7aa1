package units

import (
	"os"
	"path"
)

// keepMounted is for the mounts that a boot gives the root besides "/", of which systemd makes units by the kernel's
// mount table. Without it systemd unmounts them at the end of every system, and mounts none of them again: a
// soft-reboot into the same root would go on with an empty /var and without /persist. It unmounts what is left
// all the same before the machine goes down.
const keepMounted = `# The boot mounts this, and systemd couldn't mount it again after a soft-reboot.
[Unit]
DefaultDependencies=no
`

// keepDirectory is the unit of a directory that other units name before systemd reads the mount table: it takes no
// drop-in into account then (systemd 257). It is never started: where nothing is mounted, nothing is to be.
func keepDirectory(dir string) string {
	return keepMounted + "ConditionPathIsMountPoint=" + dir + "\n\n[Mount]\nWhat=powernode\nWhere=" + dir + "\n"
}

// mountFiles are the files below unitDir. A name that ends in a dash stands for all that begin with it
// (systemd.unit(5)).
func mountFiles() map[string]string {
	return map[string]string{
		"var.mount":     keepDirectory("/var"),
		"persist.mount": keepDirectory("/persist"),
		"run-powernode-.mount.d/10-powernode.conf": keepMounted,
	}
}

func placeMounts(run *os.Root) error {
	for name, text := range mountFiles() {
		file := path.Join(unitDir, name)
		if err := run.MkdirAll(path.Dir(file), 0o755); err != nil {
			return err
		}
		if err := run.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
