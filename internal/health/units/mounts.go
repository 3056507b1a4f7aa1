package units

import (
	"os"
	"path"
)

// bootMounts are the units of the mounts that a boot gives the root besides "/": systemd makes them of the kernel's
// mount table. The last name stands for all below /run/powernode (systemd.unit(5), of names with dashes).
var bootMounts = []string{"persist.mount", "var.mount", "run-powernode-.mount"}

// keepMounted is for them. Without it systemd unmounts them at the end of every system, and mounts none of them
// again: a soft-reboot into the same root would go on with an empty /var and without /persist. It unmounts what is
// left all the same before the machine goes down.
const keepMounted = `# The boot mounts this, and systemd couldn't mount it again after a soft-reboot.
[Unit]
DefaultDependencies=no
`

func placeMounts(run *os.Root) error {
	for _, name := range bootMounts {
		dir := path.Join(unitDir, name+".d")
		if err := run.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := run.WriteFile(path.Join(dir, "10-powernode.conf"), []byte(keepMounted), 0o644); err != nil {
			return err
		}
	}
	return nil
}
