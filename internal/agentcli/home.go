package agentcli

import (
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/fault"
)

// atHome refuses to change, or to plan a change of, the machine whose root directory root is, where it runs from that directory of record and this
// process is in another mount namespace: what is mounted there is mounted there alone, and the records would say that the machine runs it. A store
// that nothing runs from is changed from anywhere.
func atHome(root, stateDir string) error {
	facts, err := boot.ReadFacts(root)
	if err != nil || filepath.Clean(facts.StateDir) != filepath.Clean(stateDir) {
		return nil //nolint:nilerr // what can't be read is nothing that a change could be of, as newChanger says, too
	}
	home, err := facts.Home(root)
	if err != nil {
		return err
	}
	if !home {
		return fault.New(fault.Refuse, fault.Mount,
			"run it outside of the sandbox: nsenter --target 1 --mount powernode-agent ..., or in a unit without PrivateTmp=, ProtectSystem= and the like",
			"this process is in a mount namespace of its own, and what is mounted in there the machine never sees")
	}
	return nil
}
