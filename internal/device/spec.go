package device

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/powernode/powernode-agent/internal/fault"
)

// The ways to name a device.
const (
	byLabel     = "LABEL"     // of the file system
	byUUID      = "UUID"      // of the file system
	byPartLabel = "PARTLABEL" // the name of a GPT partition
	byPartUUID  = "PARTUUID"  // the GUID of a GPT partition, or SIGNATURE-NN of an MBR one
	bySerial    = "SERIAL"    // of the disk, as the kernel shows it
	byPath      = ""          // a device node below /dev
)

// valueMax bounds a name; the longest that exists is btrfs's label with 255 bytes.
const valueMax = 255

// Spec names a device in one or several ways, the first that fits counts. The zero Spec names
// nothing.
type Spec struct{ names []name }

type name struct{ by, value string }

// ParseSpec reads LABEL=x, UUID=x, PARTLABEL=x, PARTUUID=x, SERIAL=x or a path below /dev.
func ParseSpec(s string) (Spec, error) {
	bad := func(why string) (Spec, error) {
		return Spec{}, fault.New(fault.Refuse, fault.Input,
			"write LABEL=, UUID=, PARTLABEL=, PARTUUID= or SERIAL= with a value, or a path such as /dev/vda2",
			"read the name of a device %.80q: %s", s, why)
	}
	n := name{by: byPath, value: s}
	if !strings.HasPrefix(s, "/") {
		by, value, ok := strings.Cut(s, "=")
		if !ok {
			return bad("it is neither a path nor KEY=VALUE")
		}
		n = name{by: by, value: strings.Trim(value, `"`)}
	}
	switch n.by {
	case byLabel, byPartLabel, bySerial:
	case byUUID, byPartUUID:
		n.value = strings.ToLower(n.value)
	case byPath:
		if n.value = filepath.Clean(n.value); !strings.HasPrefix(n.value, "/dev/") {
			return bad("the path isn't below /dev")
		}
	default:
		return bad("nobody knows the key " + fault.OneLine(n.by))
	}
	switch {
	case n.value == "":
		return bad("the value is empty")
	case len(n.value) > valueMax:
		return bad(fmt.Sprintf("the value has more than %d bytes", valueMax))
	case strings.ContainsFunc(n.value, func(r rune) bool { return !unicode.IsPrint(r) }):
		return bad("the value has characters that don't print")
	}
	return Spec{names: []name{n}}, nil
}

// AnyOf returns a Spec that stands for the devices of all its parts; an earlier part is preferred.
func AnyOf(specs ...Spec) Spec {
	var all Spec
	for _, s := range specs {
		all.names = append(all.names, s.names...)
	}
	return all
}

// IsZero reports whether the Spec names nothing.
func (s Spec) IsZero() bool { return len(s.names) == 0 }

// String returns the Spec as ParseSpec reads it, its parts joined by " or ".
func (s Spec) String() string {
	parts := make([]string, len(s.names))
	for i, n := range s.names {
		parts[i] = n.String()
	}
	return strings.Join(parts, " or ")
}

func (n name) String() string {
	if n.by == byPath {
		return n.value
	}
	return n.by + "=" + n.value
}

// exact reports whether the name is about the device and not about what is on it.
func (n name) exact() bool { return n.by != byLabel && n.by != byUUID }
