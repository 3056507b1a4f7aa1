package boot

import (
	"context"
	"io"
	"path/filepath"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
)

// Config says what to boot with. Everything but Persist and Trust has a usable zero value.
type Config struct {
	// Persist is the directory that outlives the boot, /persist on a node. It becomes /persist of
	// the new root.
	Persist string
	// Trust is the path of trust.yaml; the files that it names lie beside it.
	Trust string
	// Places says where to look for the node's identity.
	Places identity.Places
	// Namespace is the caller's word that this process is the first of PID and mount namespaces
	// made for this boot alone, on an ordinary system. Without it the process must be the first
	// of the machine, in its initramfs.
	Namespace bool
	// Init is the program to start in the new root, with its arguments; nil is /sbin/init.
	Init []string
	// UpperSize is the size of the writable layer as tmpfs writes it ("512m", "25%"); "" is 50%
	// of the memory.
	UpperSize string
	// Console takes one line for each stage.
	Console io.Writer
	// Progress shows a download of total bytes; nil shows none.
	Progress func(name string, total int64) Download
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Download is one part of what Progress shows.
type Download interface {
	Add(n int64)
	Done(err error)
}

// The layout below Persist. StateDir is the directory of record.
const (
	stateName = "var/lib/powernode"
	pkiName   = "pki"
)

// PersistInRoot is where Persist is in the booted system.
const PersistInRoot = "/persist"

// StateDir returns the directory of record below a persist directory.
func StateDir(persist string) string { return filepath.Join(persist, stateName) }

// PKIDir returns the directory of the node's credentials below the directory of record.
func PKIDir(stateDir string) string { return filepath.Join(stateDir, pkiName) }

func (c *Config) fill() error {
	if c.Persist == "" || c.Trust == "" {
		return fault.New(fault.Refuse, fault.Input, "name both", "boot needs a persist directory and a trust policy")
	}
	persist, err := filepath.Abs(c.Persist)
	if err != nil {
		return err
	}
	c.Persist = persist
	if len(c.Init) == 0 {
		c.Init = []string{"/sbin/init"}
	}
	if c.UpperSize == "" {
		c.UpperSize = "50%"
	}
	if c.Console == nil {
		c.Console = io.Discard
	}
	if c.Progress == nil {
		c.Progress = func(string, int64) Download { return noDownload{} }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

type noDownload struct{}

func (noDownload) Add(int64)  {}
func (noDownload) Done(error) {}

// stages is the way from power-on to the new root. Each name is also a name in docs/boot.md.
func (b *boot) stages() []Stage {
	return []Stage{
		{"identify", 15 * time.Second, b.identify},
		{"enroll", 5 * time.Minute, b.enroll},
		{"fetch", 2 * time.Hour, b.fetch},
		{"verify", time.Hour, b.verify},
		{"compose", 10 * time.Minute, b.compose},
		{"mount", 5 * time.Minute, b.mount},
	}
}

// Run boots: it returns only with an error, or once the new root's init couldn't be started. When
// it returns a *StageError nothing was switched to, and what was mounted is gone again.
func Run(ctx context.Context, config Config) error {
	if err := config.fill(); err != nil {
		return err
	}
	if err := prepare(config.Namespace); err != nil {
		return err
	}
	b := &boot{config: config, facts: Facts{BootedAt: config.Now().UTC()}}
	defer b.close()
	var err error
	b.facts.Stages, err = runStages(ctx, config.Console, b.stages())
	if err == nil {
		err = ctx.Err() // the last moment at which nothing has been switched
	}
	if err != nil {
		return err
	}
	return b.handOver()
}
