package mount

import (
	"fmt"
	"os"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"golang.org/x/sys/unix"
)

// sourcePrefix begins the source of every union of ours; the root digest follows it. The kernel
// keeps the source and shows it in the mount table, so that what is mounted can be told without
// any record of our own.
const sourcePrefix = "powernode:"

// MountedUnion is a union of ours as the kernel's table shows it.
type MountedUnion struct {
	Entry Entry `json:"mount"`
	// Digest is the root digest that the union was made with.
	Digest fsverity.Digest `json:"root_digest"`
	// Level is Enforced if the kernel checks each object on opening it, else Checked.
	Level Level `json:"integrity_level"`
	// Layers and Data are the lower layers and the object store, Upper and Work the writable part
	// ("" in a read-only union), by the paths that they had when the union was made.
	Layers []string `json:"layers"`
	Data   []string `json:"data"`
	Upper  string   `json:"upper,omitempty"`
	Work   string   `json:"work,omitempty"`
	// Volatile reports that the upper isn't synced and must not be used again after a crash.
	Volatile bool `json:"volatile,omitempty"`
}

// Ours reads e as a union of ours and reports whether it is one: an overlay whose source is our
// mark with a root digest, and that has the data-only layer and the metacopy option which every
// union of ours has. Anyone with the right to mount could forge that; where a wrong answer would
// do harm, compare the ID with the one that was recorded, too.
func Ours(e Entry) (MountedUnion, bool) {
	mark, marked := strings.CutPrefix(e.Source, sourcePrefix)
	digest, err := fsverity.ParseDigest(mark)
	if e.FSType != "overlay" || !marked || err != nil {
		return MountedUnion{}, false
	}
	u := MountedUnion{Entry: e, Digest: digest, Level: Checked}
	metacopy := false
	for _, v := range e.Super {
		switch v.Key {
		case "lowerdir+":
			u.Layers = append(u.Layers, v.Value)
		case "datadir+":
			u.Data = append(u.Data, v.Value)
		case "lowerdir": // "a:b::data", from kernels without lowerdir+
			layers, data, _ := strings.Cut(v.Value, "::")
			u.Layers = append(u.Layers, splitLayers(layers, ":")...)
			u.Data = append(u.Data, splitLayers(data, "::")...)
		case "upperdir":
			u.Upper = v.Value
		case "workdir":
			u.Work = v.Value
		case "metacopy":
			metacopy = v.Value == "on"
		case "verity":
			if v.Value == "require" {
				u.Level = Enforced
			}
		case "volatile":
			u.Volatile = true
		case "fsync": // how newer kernels show the flag volatile
			u.Volatile = v.Value == "volatile"
		}
	}
	return u, metacopy && len(u.Layers) > 0 && len(u.Data) > 0
}

func splitLayers(s, separator string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, separator)
}

// Unions returns all unions of ours in the table, covered ones too.
func (t Table) Unions() []MountedUnion {
	var unions []MountedUnion
	for _, e := range t {
		if u, ok := Ours(e); ok {
			unions = append(unions, u)
		}
	}
	return unions
}

// UnionAt returns the union of ours that is mounted at path, topmost. The error wraps
// ErrNotMounted where nothing is mounted, and is a refusal where something else is.
func UnionAt(path string) (MountedUnion, error) {
	e, err := At(path)
	if err != nil {
		return MountedUnion{}, err
	}
	u, ok := Ours(e)
	if !ok {
		return MountedUnion{}, notOurs(path, e)
	}
	return u, nil
}

func notOurs(path string, e Entry) error {
	return fault.New(fault.Refuse, fault.Mount, "look at it with findmnt; unmount it by hand if it should not be there",
		"%s holds a mount that is not a union of ours (%s from %q)", path, e.FSType, e.Source)
}

// Claim says which union the caller believes to be mounted. Zero fields claim nothing.
type Claim struct {
	Digest fsverity.Digest
	ID     ID
}

// Unmount takes the topmost mount at path out of the tree, lazily: who has files open in it keeps
// them. It refuses unless the mount is proven to be a union of ours that the claim fits, and
// refuses too where something else is mounted below it, which would vanish with it.
//
// The proof and the unmount are about the same mount, even if another one is put over it between.
func Unmount(path string, claim Claim) error {
	f, err := openPath(path)
	if err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	defer f.Close()
	id, isRoot, err := identify(f)
	if err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if !isRoot {
		return fmt.Errorf("unmount %s: %w", path, ErrNotMounted)
	}
	table, err := ReadTable()
	if err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := table.prove(path, id, claim); err != nil {
		return err
	}
	return Detach(f)
}

// prove is the decision behind Unmount, without the effects.
func (t Table) prove(path string, id ID, claim Claim) error {
	e, ok := t.Find(id.Mount)
	if !ok {
		return fmt.Errorf("unmount %s: mount %d is not in the mount table: %w", path, id.Mount, ErrNotMounted)
	}
	u, ok := Ours(e)
	if !ok {
		return notOurs(path, e)
	}
	if !claim.Digest.IsZero() && claim.Digest != u.Digest {
		return fault.New(fault.Refuse, fault.Mount, "",
			"%s holds the union of root digest %s, not of %s: it stays mounted", path, u.Digest, claim.Digest)
	}
	if claim.ID != (ID{}) && !claim.ID.Same(id) {
		return fault.New(fault.Refuse, fault.Mount, "",
			"%s holds another mount than the one that was recorded (mount %d, recorded %d): it stays mounted",
			path, id.Mount, claim.ID.Mount)
	}
	if below := t.Children(id.Mount); len(below) > 0 {
		return fault.New(fault.Refuse, fault.Mount, "unmount it first",
			"%s can't be unmounted: %s is mounted below it", path, below[0].Point)
	}
	return nil
}

// Detach lazily unmounts the mount whose root f is open on, and all that is mounted in it: who has
// files open there keeps them, and while f is open the file system stays. The descriptor's path
// in /proc leads to that very mount, even where another one covers it: nothing is looked up again.
// It proves nothing: the caller must know what it takes away.
func Detach(f *os.File) error {
	if err := unix.Unmount(procPath(f), unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", f.Name(), err)
	}
	return nil
}
