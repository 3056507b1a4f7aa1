package mount

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Ability is what a probe found out: yes, or no with the reason.
type Ability struct {
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

func ability(err error) Ability {
	if err != nil {
		return Ability{Reason: err.Error()}
	}
	return Ability{OK: true}
}

// Abilities is what the kernel, and the file system of one directory, can do for a union.
type Abilities struct {
	// Kernel is the release, for people to read: nothing is decided by it.
	Kernel string `json:"kernel"`
	// Directory is the one that FSVerity and EROFSFromFile speak of.
	Directory string `json:"directory"`

	FSVerity      Ability `json:"fsverity"`          // files in Directory can have fs-verity
	EROFSFromFile Ability `json:"erofs_from_file"`   // images in Directory mount as they are
	EROFSByLoop   Ability `json:"erofs_by_loop"`     // images mount through a loop device
	Overlay       Ability `json:"overlay"`           // by the new mount interface (6.5)
	DataLayers    Ability `json:"data_layers"`       // data-only layers (6.5)
	VerityRequire Ability `json:"verity_require"`    // overlay's verity=require (6.6)
	AppendLayers  Ability `json:"append_layers"`     // lowerdir+ and datadir+ (6.7)
	Descriptors   Ability `json:"layer_descriptors"` // layers by descriptor (6.13)
	Detached      Ability `json:"detached_layers"`   // layers in detached mounts (6.15)
	Beneath       Ability `json:"beneath"`           // mounts put beneath others (6.5)
}

// Probe tries out what the kernel can do, and what the file system of dir, which must exist and be
// writable, can. It takes some milliseconds and leaves nothing behind: its files have no names,
// its mounts are never attached. It fails only if dir can't be opened; all else is in the answer.
func Probe(dir string) (Abilities, error) {
	d, err := os.Open(dir)
	if err != nil {
		return Abilities{}, fmt.Errorf("probe the kernel's abilities: %w", err)
	}
	defer d.Close()
	a := Abilities{Directory: dir, Kernel: release()}
	a.FSVerity = ability(probeVerity(dir))
	a.EROFSFromFile = ability(probeEROFSFromFile(dir))
	a.EROFSByLoop = ability(probeEROFSByLoop())
	a.Beneath = ability(probeBeneath())
	a.Overlay = ability(probeOverlay())
	if !a.Overlay.OK {
		none := Ability{Reason: a.Overlay.Reason}
		a.DataLayers, a.VerityRequire, a.AppendLayers, a.Descriptors, a.Detached = none, none, none, none, none
		return a, nil
	}
	a.DataLayers = ability(probeDataLayers())
	a.VerityRequire = ability(probeOptions(String("verity", "require")))
	a.AppendLayers = ability(probeOptions(String("lowerdir+", "/"), String("datadir+", "/")))
	a.Descriptors = ability(probeOptions(Descriptor("lowerdir+", d)))
	a.Detached = ability(probeDetached())
	return a, nil
}

// ProbeBeneath asks only whether mounts can be put beneath others.
func ProbeBeneath() Ability { return ability(probeBeneath()) }

// probeLayering asks only what Union needs to know each time.
func probeLayering() layering {
	root, err := os.Open("/")
	if err != nil {
		return layering{}
	}
	defer root.Close()
	how := layering{appends: probeOptions(String("lowerdir+", "/"), String("datadir+", "/")) == nil}
	if how.appends {
		how.descriptors = probeOptions(Descriptor("lowerdir+", root)) == nil
		how.detached = probeDetached() == nil
	}
	return how
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
