// Package units brings the agent's systemd units into a system that the agent boots: not by a module, so that
// no module can leave a node without its agent, and not on the disk, so that they are always this agent's.
package units

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// Agent is the name of the agent's unit.
const Agent = "powernode-agent.service"

//go:embed powernode-agent.service
var agent []byte

// unitDir is where systemd looks for units of the running boot (systemd.unit(5)), below /run. Units there go before
// those of the root's /usr/lib, and after those of its /etc: an administrator can still mask or extend them.
const unitDir = "systemd/system"

// Place writes the units below run, which becomes or is the /run of the system, has the agent started with
// multi-user.target, and has systemd keep its hands off what the boot mounted. Units that are there from an earlier time are replaced. On a system without systemd
// they do nothing.
func Place(run string) error {
	if err := place(run); err != nil {
		return fmt.Errorf("bring the unit %s along: %w", Agent, err)
	}
	return nil
}

func place(run string) error {
	wants := path.Join(unitDir, "multi-user.target.wants")
	root, err := os.OpenRoot(run)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	unit, link := path.Join(unitDir, Agent), path.Join(wants, Agent)
	for _, name := range []string{unit, link} {
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := root.WriteFile(unit, agent, 0o644); err != nil {
		return err
	}
	// Whatever the umask is.
	if err := root.Chmod(unit, 0o644); err != nil {
		return err
	}
	if err := root.Symlink(path.Join("..", Agent), link); err != nil {
		return err
	}
	return placeMounts(root)
}
