package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/health"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/rootfs"
)

// RunDir is where the running boot keeps what must not outlive it.
const RunDir = "/run/powernode"

// FactsName is the file in RunDir that holds the Facts; factsMax bounds it in bytes.
const (
	FactsName = "boot.json"
	factsMax  = 1 << 20
)

// Facts is what the booted system knows of its boot.
type Facts struct {
	BootedAt   time.Time       `json:"booted_at"`
	InstanceID string          `json:"instance_id"`
	Generation uint64          `json:"generation"`
	RootDigest fsverity.Digest `json:"root_digest"`
	// Base is the root that was booted, where others went live since: Generation and RootDigest are of what runs.
	Base fsverity.Digest `json:"base_root_digest,omitzero"`
	// ExpectedRootDigest is what the platform computed; zero where it didn't say.
	ExpectedRootDigest fsverity.Digest `json:"expected_root_digest"`
	Level              mount.Level     `json:"integrity_level"`
	// Mount identifies the union, so that it is known again.
	Mount mount.ID `json:"mount"`
	// Root is what the root is made of beside its image.
	Root rootfs.Facts `json:"root"`
	// Persist is what outlives the boot.
	Persist Persist `json:"persist"`
	// StateDir is the directory of record as the booted system sees it.
	StateDir string `json:"state_dir"`
	// IdentitySources are the sources of identity that counted, as Config.Places.Only; nil for all.
	IdentitySources []string `json:"identity_sources,omitzero"`
	Pulled          Pulled   `json:"pulled"`
	Files           int      `json:"files"`
	Shared          int      `json:"shared_between_modules"`
	Conflict        int      `json:"conflicts"`
	// Memory is that of the machine and of the agent at the hand-over, once the initramfs is freed.
	Memory rootfs.Memory `json:"memory"`
	// Freed is what was removed of the initramfs; nothing where the agent isn't the machine's first process.
	Freed Freed `json:"freed,omitzero"`
	// Journal is the boot's, up to the hand-over.
	Journal Journal `json:"journal"`
	// Health is what the health gate goes by.
	Health health.Settings `json:"health,omitzero"`
	// Refused says why the boot isn't of what the platform assigned, though the platform answered;
	// "" where it is, or where nobody could be asked.
	Refused string `json:"refused,omitempty"`
	// Remarks are things that a person should know although the boot went on.
	Remarks []string `json:"remarks,omitempty"`
}

// Persist is the file system that outlives the boot, as far as the boot knows.
type Persist struct {
	// Kind is "disk", "memory" where there is none, or "directory" for one that was given.
	Kind   string `json:"kind"`
	Device string `json:"device,omitempty"`
	FSType string `json:"fstype,omitempty"`
	// ReadOnly says that it can't be written to; what changes is gone with the boot.
	ReadOnly bool `json:"read_only"`
}

// Freed counts what was removed of the initramfs, so that it takes no memory.
type Freed struct {
	// Files includes directories.
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

// Pulled counts what the boot fetched.
type Pulled struct {
	Modules int `json:"modules"`
	Layers  int `json:"layers"`
	// Bytes is compressed, as it came over the network.
	Bytes      int64 `json:"bytes"`
	Objects    int64 `json:"objects"`
	NewObjects int64 `json:"new_objects"`
}

// Booted is the root digest of the union at "/" itself, which live changes leave as it is.
func (f Facts) Booted() fsverity.Digest {
	if f.Base.IsZero() {
		return f.RootDigest
	}
	return f.Base
}

// WentLive writes down, below root, that another generation runs now, without a boot.
func WentLive(root string, generation uint64, digest fsverity.Digest) error {
	f, err := ReadFacts(root)
	if err != nil {
		return err
	}
	if f.Generation == generation && f.RootDigest == digest {
		return nil
	}
	f.Base = f.Booted()
	f.Generation, f.RootDigest = generation, digest
	// The trial that this boot was is over: whoever goes live isn't found good by it.
	f.Health.Trial = false
	// What the platform computed was of another list.
	f.ExpectedRootDigest, f.Refused = fsverity.Digest{}, ""
	return f.write(filepath.Join(root, RunDir))
}

// ReadFacts returns the facts of the running boot from below root, "/" on a node. The error
// wraps fs.ErrNotExist on a system that this agent didn't boot.
func ReadFacts(root string) (Facts, error) {
	dir, err := os.OpenRoot(filepath.Join(root, RunDir))
	if err != nil {
		return Facts{}, fmt.Errorf("read the facts of this boot: %w", err)
	}
	defer dir.Close()
	data, err := durable.ReadFile(dir, FactsName, factsMax)
	if err != nil {
		return Facts{}, fmt.Errorf("read the facts of this boot: %w", err)
	}
	var f Facts
	if err := durable.DecodeJSON(data, &f); err != nil {
		return Facts{}, fmt.Errorf("read the facts of this boot: %w", err)
	}
	return f, nil
}
