package boot

import (
	"io"
	"path/filepath"
	"time"

	"github.com/powernode/powernode-agent/internal/bootconfig"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity/places"
)

// Mode says in what surroundings a boot runs.
type Mode string

// The modes.
const (
	// Machine is the machine's first process, in an initramfs of ours.
	Machine Mode = "machine"
	// Sysroot is a program of another's initramfs, which makes the root and leaves the switch to its
	// first process.
	Sysroot Mode = "sysroot"
	// Namespace is the first process of namespaces on an ordinary system.
	Namespace Mode = "namespace"
)

// Gate says what makes a new generation good.
type Gate string

// The gates.
const (
	// AtHandOver takes a root for good whose init can be started.
	AtHandOver Gate = "hand-over"
	// ByService leaves it to the service of the booted system; until then the generation is on trial.
	ByService Gate = "service"
)

// Config says what to boot with. Everything but Trust has a usable zero value.
type Config struct {
	// Persist is the directory that outlives the boot; it becomes /persist of the new root. "" in
	// an initramfs is to find its file system and mount it, and in namespaces /persist.
	Persist string
	// Trust is the path of trust.yaml; the files that it names lie beside it.
	Trust string
	// Settings is the path of boot.yaml, which may be missing; "" is bootconfig.Path.
	Settings string
	// Places says where to look for the node's identity. Without Only, the settings say which sources count.
	Places places.Places
	// Namespace is the caller's word that this process is the first of PID and mount namespaces
	// made for this boot alone, on an ordinary system. Without it the process must be the first
	// of the machine, in its initramfs, or Sysroot be given.
	Namespace bool
	// Sysroot is where to make the root for the init system of another's initramfs, which then
	// switches to it; "" for none.
	Sysroot string
	// Health is what makes a new generation good; "" is AtHandOver in namespaces, and else ByService.
	Health Gate
	// Init is the program to start in the new root, with its arguments; nil is /sbin/init.
	Init []string
	// UpperSize is the size of the writable layer as tmpfs writes it ("512m", "25%"); "" is what the
	// settings say, and 50% of the memory where they say nothing.
	UpperSize string
	// Console takes one line for each stage.
	Console io.Writer
	// Progress shows a download of total bytes; nil shows none.
	Progress func(name string, total int64) Download
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// mode returns the mode that the configuration asks for.
func (c *Config) mode() Mode {
	switch {
	case c.Namespace:
		return Namespace
	case c.Sysroot != "":
		return Sysroot
	default:
		return Machine
	}
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
	if c.Trust == "" {
		return fault.New(fault.Refuse, fault.Input, "name one with --trust-policy", "boot needs a trust policy")
	}
	if c.Namespace && c.Sysroot != "" {
		return fault.New(fault.Refuse, fault.Input, "give one of them", "--namespace and --sysroot exclude each other")
	}
	if c.Persist == "" && c.Namespace {
		c.Persist = PersistInRoot
	}
	for _, path := range []*string{&c.Persist, &c.Sysroot} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	switch c.Health {
	case AtHandOver, ByService:
	case "":
		c.Health = ByService
		if c.Namespace {
			c.Health = AtHandOver
		}
	default:
		return fault.New(fault.Refuse, fault.Input, "give hand-over or service", "--health %.40q isn't known", c.Health)
	}
	if c.Settings == "" {
		c.Settings = bootconfig.Path
	}
	if len(c.Init) == 0 {
		c.Init = []string{"/sbin/init"}
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

// stages is the way from power-on to the new root. Each name is also a name in docs/boot.md. What
// namespaces of an ordinary system have already isn't done there.
func (b *boot) stages() []Stage {
	all := []Stage{
		{"prepare", time.Minute, b.prepare},
		{"modules", 2 * time.Minute, b.modules},
		{"network", time.Minute, b.startNetwork},
		{"persist", 30 * time.Minute, b.findPersist},
		{"identify", 5 * time.Minute, b.identify},
		{"enroll", 10 * time.Minute, b.enroll},
		{"fetch", 2 * time.Hour, b.fetch},
		{"verify", time.Hour, b.verify},
		{"compose", 10 * time.Minute, b.compose},
		{"mount", 30 * time.Minute, b.mount},
	}
	if b.mode == Namespace {
		return all[4:]
	}
	return all
}
