package boot

import (
	"fmt"
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/durable"
)

// upName is the file beside the journals that holds the kernel's ID of the last boot whose system came as
// far as the agent's service, and upMax bounds it in bytes.
const (
	upName = "came-up"
	upMax  = 64
)

// CameUp writes down that the system of the boot with this ID came as far as the agent's service. The
// next boot of a system that didn't reads every byte of it: what is damaged may be what it died of.
func CameUp(stateDir, bootID string) error {
	dir, err := durable.OpenDir(filepath.Join(stateDir, bootsName), nil)
	if err == nil {
		defer dir.Close()
		err = dir.WriteFile(upName, []byte(bootID), 0o600, "came-up")
	}
	if err != nil {
		return fmt.Errorf("write down that the system came up: %w", err)
	}
	return nil
}

// diedEarly reports whether the last boot handed over, and nothing was heard of its system after that.
func diedEarly(stateDir, bootID string) bool {
	journals, _ := ReadJournals(stateDir) // one that can't be read says nothing
	for _, j := range journals {
		if j.BootID == bootID {
			continue
		}
		if j.Outcome != HandedOver {
			return false
		}
		dir, err := durable.OpenDir(filepath.Join(stateDir, bootsName), nil)
		if err != nil {
			return false
		}
		defer dir.Close()
		up, err := dir.ReadFile(upName, upMax)
		return err != nil || string(up) != j.BootID
	}
	return false
}
