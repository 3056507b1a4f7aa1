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

// keepVar is the unit of /var. Other units name it before systemd reads the mount table, and it then takes no
// drop-in into account (systemd 257). It is never started: where /var isn't mounted, it isn't to be.
const keepVar = keepMounted + `ConditionPathIsMountPoint=/var

[Mount]
What=/persist/var/lib/powernode/roots/var
Where=/var
Type=none
Options=bind
`

// mountFiles are the files below unitDir. A name that ends in a dash stands for all that begin with it
// (systemd.unit(5)).
var mountFiles = map[string]string{
	"var.mount":                                keepVar,
	"persist.mount.d/10-powernode.conf":        keepMounted,
	"run-powernode-.mount.d/10-powernode.conf": keepMounted,
}

func placeMounts(run *os.Root) error {
	for name, text := range mountFiles {
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
