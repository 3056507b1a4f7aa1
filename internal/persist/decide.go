package persist

import (
	"fmt"

	"github.com/powernode/powernode-agent/internal/device"
)

// plan is what is to be done with a device before it is mounted; one with refused set isn't used.
type plan struct {
	prepare, unmark bool
	refused, hint   string
	several         bool // refused because others fit as well
}

// decide is the whole policy of preparing, as a pure function.
func decide(allowed Prepare, d device.Device, was state) plan {
	switch {
	case len(d.Others) > 0:
		// Whoever can attach a disk could have it taken for the node's.
		return plan{
			refused: fmt.Sprintf("%s fits %v, too", d.Spec, d.Others), several: true,
			hint: "take away what isn't the node's disk, or name it by PARTUUID=, SERIAL= or its path",
		}
	case was == unmarked && d.ReadOnly:
		return plan{} // mounting it read-only writes nothing, the mark does no harm
	case was == unmarked:
		return plan{unmark: true}
	case was == untouched && d.Type != "":
		return plan{}
	case was == untouched && !d.Empty:
		return plan{
			refused: "there is something on it that is no ext4, xfs or btrfs",
			hint:    "name another device, or wipe this one if nothing on it is needed",
		}
	}
	// What is left is empty, or was when its preparation began.
	switch {
	case !d.Exact:
		return plan{refused: "it isn't named by itself", hint: "name it by PARTLABEL=, PARTUUID=, SERIAL= or its path"}
	case allowed != Empty && was == unfinished:
		return plan{refused: "its preparation was cut off", hint: "allow to finish it with powernode.persist_prepare=empty"}
	case allowed != Empty:
		return plan{refused: "it is empty", hint: "allow to make a file system on it with powernode.persist_prepare=empty, or make one labelled " + Label}
	case d.ReadOnly:
		return plan{refused: "it is empty, and can't be written to", hint: "take the write protection off"}
	case d.Size < MinSize:
		return plan{refused: "it has " + size(d.Size) + ", which is too small", hint: "give it " + size(MinSize) + " at least"}
	}
	return plan{prepare: true}
}
