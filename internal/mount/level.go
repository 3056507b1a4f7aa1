package mount

import (
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Level says who proves that a root holds the bytes that were signed.
type Level string

// The integrity levels, stronger first. The zero value is no level: nothing is mounted at it.
const (
	// Enforced: objects and images carry fs-verity; the kernel checks each of them on opening,
	// and each block on reading.
	Enforced Level = "enforced"
	// Checked: the agent hashes everything before it mounts; the kernel checks nothing after.
	Checked Level = "checked"
)

// ParseLevel reads a level as the trust policy and the kernel command line write it.
func ParseLevel(s string) (Level, error) {
	switch l := Level(s); l {
	case Enforced, Checked:
		return l, nil
	default:
		return "", fault.New(fault.Refuse, fault.Input, `write "enforced" or "checked"`, "integrity level %.40q is unknown", s)
	}
}

// Decide returns the level to mount at: the strongest that the kernel and the object store's file
// system can give, which may be stronger than required, never weaker. The error is a refusal that
// names what is missing. It is a pure function.
func Decide(a Abilities, required Level) (Level, error) {
	if _, err := ParseLevel(string(required)); err != nil {
		return "", err
	}
	if !a.Overlay.OK {
		return "", unable("run Linux 6.5 or newer with overlay", a.Overlay.Reason)
	}
	if !a.DataLayers.OK {
		return "", unable("run Linux 6.5 or newer with overlay", "overlay has no data-only layers: "+a.DataLayers.Reason)
	}
	if !a.EROFSFromFile.OK && !a.EROFSByLoop.OK {
		return "", unable("run a kernel with EROFS; on tmpfs or before Linux 6.12 it needs loop devices, too",
			"EROFS images can't be mounted: from a file: "+a.EROFSFromFile.Reason+"; by loop device: "+a.EROFSByLoop.Reason)
	}
	lacks := missing(need{"verity=require in overlay", a.VerityRequire}, need{"fs-verity on " + a.Directory, a.FSVerity})
	switch {
	case lacks == "":
		return Enforced, nil
	case required == Enforced:
		return "", fault.New(fault.Refuse, fault.Policy,
			"put the object store on a file system with fs-verity (mkfs.ext4 -O verity, Linux 6.6), or let the trust policy accept the level \"checked\"",
			"integrity level \"enforced\" is required and can't be had: %s", lacks)
	default:
		return Checked, nil
	}
}

func unable(hint, lacks string) error {
	return fault.New(fault.Refuse, fault.Mount, hint, "this machine can't mount a composed root: %s", lacks)
}

type need struct {
	name string
	Ability
}

// missing lists the abilities that are not there, with the reasons; "" if all are.
func missing(needed ...need) string {
	var lacks []string
	for _, n := range needed {
		if !n.OK {
			lacks = append(lacks, n.name+": "+n.Reason)
		}
	}
	return strings.Join(lacks, "; ")
}
