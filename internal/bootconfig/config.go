package bootconfig

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Path is where an initramfs has its boot.yaml.
const Path = "/etc/powernode/boot.yaml"

// The values of settings that are words.
const (
	// No and Empty say what may be done to the persist device: nothing, or to make a file system on it
	// if nothing at all is on it.
	No    = "no"
	Empty = "empty"
	// Auto and Off say whether the boot brings the network up.
	Auto = "auto"
	Off  = "off"
	// Tmpfs and OnPersist say where the upper is: in memory, or on the persist file system.
	Tmpfs     = "tmpfs"
	OnPersist = "persist"
	// Ephemeral and Persistent say whether changes below /etc outlive the boot.
	Ephemeral  = "ephemeral"
	Persistent = "persistent"
	// Checked and Enforced are the integrity levels, weaker first.
	Checked  = "checked"
	Enforced = "enforced"
	// Required and Optional say whether a new generation must reach the platform to be good.
	Required = "required"
	Optional = "optional"
	// Memory, as the persist device, is to work without a disk.
	Memory = "memory"
)

// Config is how the boot is to go. Default returns the settings that count where nothing is said.
type Config struct {
	// Persist is the device of the persist file system, as package device reads it, or Memory; "" is
	// the default of package persist.
	Persist string
	// PersistPrepare is No or Empty.
	PersistPrepare string
	// PersistTimeout is how long to wait for the device.
	PersistTimeout time.Duration
	// Network is Auto or Off. NetworkTimeout is how long to wait for a usable network; 0 leaves that
	// to the boot, which waits minutes for its first generation and seconds once it has one.
	Network        string
	NetworkTimeout time.Duration
	// Upper is Tmpfs or OnPersist; UpperSize is a tmpfs's size ("512m", "25%"), "" for its default.
	Upper, UpperSize string
	// Etc is Ephemeral or Persistent.
	Etc string
	// Integrity is the least level that is asked for beyond the trust policy's, "" for none.
	Integrity string
	// Break is the stage to stop before, "" for none. The trust policy must allow it.
	Break string
	// Tries is how often a generation is booted that wasn't found good yet.
	Tries int
	// HealthTimeout is how long after the hand-over it has to be found good; Platform, Required or
	// Optional, says whether it must reach the platform for that.
	HealthTimeout time.Duration
	Platform      string
	// Identity are the sources of identity that count, nil for all, and empty for none; those among them that are asked over the
	// network are asked whatever the firmware says of where the machine is.
	Identity []string
	// Generation is the one to boot instead of the one that is next, 0 for none.
	Generation uint64
}

// Default returns the settings that count where nothing is said.
func Default() Config {
	return Config{
		PersistPrepare: No, PersistTimeout: 30 * time.Second, Network: Auto,
		Upper: Tmpfs, Etc: Ephemeral, Tries: 3, HealthTimeout: 5 * time.Minute, Platform: Required,
	}
}

// Remark is what a person should know although the boot goes on.
type Remark struct{ Text, Hint string }

// Load returns what file, the text of boot.yaml or nil where there is none, and the kernel command
// line ask for together, with remarks on what of the command line doesn't count. The error, of kind
// Refuse, says what of them would weaken the boot if it were passed over.
func Load(file []byte, cmdline string) (Config, []Remark, error) {
	c := Default()
	if file != nil {
		if err := c.readFile(file); err != nil {
			return c, nil, fault.New(fault.Refuse, fault.Input, "correct it and build the initramfs anew; docs/boot.md describes it",
				"read %s: %w", Path, err)
		}
	}
	remarks, err := c.readCmdline(cmdline)
	if err != nil {
		return c, remarks, fault.New(fault.Refuse, fault.Input, "correct the kernel command line", "read the kernel command line: %w", err)
	}
	return c, remarks, nil
}

// readCmdline applies our parameters in their order, so that the last of several wins.
func (c *Config) readCmdline(line string) ([]Remark, error) {
	if len(line) > CmdlineMax {
		return nil, fmt.Errorf("it is longer than %d bytes", CmdlineMax)
	}
	var remarks []Remark
	remark := func(hint, format string, args ...any) {
		remarks = append(remarks, Remark{fmt.Sprintf(format, args...), hint})
	}
	least, upper, etc := c.Integrity, c.Upper, c.Etc
	for _, p := range Split(line) {
		name, ok := p.Own()
		if !ok || slices.Contains(identityKeys, name) {
			continue
		}
		key, known := keys[name]
		if !known {
			remark("correct it, or take it away", "the kernel command line has %s%.40s, which this agent doesn't know", Prefix, name)
			continue
		}
		err := errors.New("its quote isn't closed")
		if !p.Open {
			err = key.apply(c, p.Value)
		}
		if err != nil && key.mistaken != nil {
			key.mistaken(c, p.Value)
			remark("correct it", "%s%s of the kernel command line: %v; only the sources that are known there count, and no other", Prefix, name, err)
			continue
		}
		if err != nil && key.guards {
			return remarks, fmt.Errorf("%s%s: %w", Prefix, name, err)
		}
		if err != nil {
			remark("correct it, or take it away", "%s%s of the kernel command line doesn't count: %v", Prefix, name, err)
		}
	}
	// What is on the disk lies over the proven root then, and nobody has signed it.
	if c.Upper != upper && c.Upper == OnPersist {
		c.Upper = upper
		remark("set it in boot.yaml of the initramfs", "%supper=%s of the kernel command line doesn't count", Prefix, OnPersist)
	}
	if c.Etc != etc && c.Etc == Persistent {
		c.Etc = etc
		remark("set it in boot.yaml of the initramfs", "%setc=%s of the kernel command line doesn't count", Prefix, Persistent)
	}
	if least == Enforced && c.Integrity != Enforced {
		c.Integrity = Enforced
		remark("", "the kernel command line can't lower the integrity level that boot.yaml asks for")
	}
	return remarks, nil
}

// Keys returns the names of all settings, sorted.
func Keys() []string {
	names := make([]string, 0, len(keys))
	for name := range keys {
		names = append(names, name)
	}
	slices.SortFunc(names, strings.Compare)
	return names
}
