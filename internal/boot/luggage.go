package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/health"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/rootfs"
)

// luggage is what goes from the old root to the new one by hand, because an ordinary system's
// /run isn't taken along. It is packed before the switch and needs nothing of the old root after.
type luggage struct {
	agent *os.File
	facts Facts
	// assigned is what the platform assigned in this boot; nil where nobody knows.
	assigned *change.Last
	trust    map[string][]byte
	// upper is the file system of a writable layer in memory, for the live changes of a system whose /run isn't taken along; nil
	// for one whose is.
	upper *mount.Mount
}

func (b *boot) pack() (*luggage, error) {
	j := b.voice.journal
	j.change(func(d *Journal) {
		d.Outcome, d.EndedMillis, d.Stage, d.Failure = HandedOver, j.clock().Milliseconds(), "", ""
	})
	if err := j.save(); err != nil {
		b.remark(err.Error(), "")
	}
	facts := b.facts
	facts.StateDir = StateDir(PersistInRoot)
	facts.Persist, facts.Journal = b.persist, j.snapshot()
	if rest, below := strings.CutPrefix(facts.Root.UpperDir, b.persistDir+"/"); below {
		facts.Root.UpperDir = filepath.Join(PersistInRoot, rest)
	}
	facts.IdentitySources = b.places().Only
	facts.Health.HandedOverSeconds = int64(health.Uptime() / time.Second)
	agent, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("take the agent along: %w", err)
	}
	l := &luggage{agent: agent, facts: facts, assigned: b.assigned, trust: b.trust.Files}
	if b.mode == Namespace && facts.Root.Upper == rootfs.InMemory {
		// Without it the root runs all the same, and isn't changed live.
		if dir, err := os.Open(upperInMemory); err == nil {
			l.upper, _ = mount.Clone(dir, false)
			dir.Close()
		}
	}
	if err := l.measure(Freed{}); err != nil {
		b.voice.say("remark: %v", err)
	}
	return l, nil
}

// measure notes the memory as it is now, and what was freed of the initramfs.
func (l *luggage) measure(freed Freed) (err error) {
	l.facts.Freed = freed
	l.facts.Memory, err = rootfs.ReadMemory()
	return err
}

func (l *luggage) close() {
	l.agent.Close()
	if l.upper != nil {
		l.upper.Close()
	}
}

// upperInMemory is where the file system of a writable layer in memory is mounted.
var upperInMemory = filepath.Join(RunDir, "upper")

// unpackUpper mounts the writable layer's file system where it was before the switch.
func (l *luggage) unpackUpper() error {
	if l.upper == nil {
		return nil
	}
	if err := os.MkdirAll(upperInMemory, 0o700); err != nil {
		return err
	}
	return l.upper.Attach(upperInMemory)
}

// TrustName is the trust policy's name below RunDir's directory "trust", and AgentPath where the
// running boot keeps the agent's own binary.
const TrustName = "trust.yaml"

// The places of a booted system.
var (
	AgentPath = filepath.Join(RunDir, "bin", "powernode-agent")
	TrustPath = filepath.Join(RunDir, "trust", TrustName)
)

// unpack writes everything below dir, on a tmpfs of this boot.
func (l *luggage) unpack(dir string) error {
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	for name, data := range l.trust {
		path := filepath.Join(dir, "trust", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o444); err != nil {
			return err
		}
	}
	if err := l.unpackFacts(dir); err != nil {
		return err
	}
	if l.assigned != nil {
		if err := writeNew(dir, change.LastName, l.assigned); err != nil {
			return err
		}
	}
	// One that an attempt before has left may be running.
	agent := filepath.Join(bin, filepath.Base(AgentPath))
	if err := os.Remove(agent); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := os.OpenFile(agent, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, l.agent); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// unpackFacts writes the facts alone.
func (l *luggage) unpackFacts(dir string) error { return l.facts.write(dir) }

// write writes the facts in the place of those that are there, whole or not at all.
func (f Facts) write(dir string) error { return writeNew(dir, FactsName, f) }

// writeNew writes a record of this boot whole or not at all.
func writeNew(dir, name string, record any) error {
	data, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return err
	}
	temp := filepath.Join(dir, "."+name)
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(temp, data, 0o444); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(dir, name))
}
