package mount

import (
	"fmt"
	"os"

	"github.com/powernode/powernode-agent/internal/fsverity"
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

// probeVerity enables fs-verity on a file without a name.
func probeVerity(dir string) error {
	f, err := unnamedFile(dir, []byte("powernode"))
	if err != nil {
		return err
	}
	defer f.Close()
	// Enabling wants a descriptor for reading and no writer anywhere (FS_IOC_ENABLE_VERITY).
	fd, err := unix.Open(procPath(f), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open an unnamed file: %w", err)
	}
	r := os.NewFile(uintptr(fd), "a file in "+dir)
	defer r.Close()
	f.Close()
	if err := fsverity.Enable(r); err != nil {
		return err
	}
	_, err = fsverity.Measure(r)
	return err
}

func probeEROFSFromFile(dir string) error {
	f, err := unnamedFile(dir, emptyImage())
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := erofsFromFile(f, 0)
	if err != nil {
		return err
	}
	return m.Close()
}

func probeEROFSByLoop() error {
	fd, err := unix.MemfdCreate("powernode-probe", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "powernode-probe")
	defer f.Close()
	if _, err := f.Write(emptyImage()); err != nil {
		return err
	}
	m, err := erofsByLoop(f, 0)
	if err != nil {
		return err
	}
	return m.Close()
}

// probeBeneath calls move_mount(2) with descriptors that can't be: a kernel that doesn't know the
// flag refuses it (EINVAL) before it looks at them (EBADF).
func probeBeneath() error {
	err := unix.MoveMount(-1, "", -1, "", moveMountBeneath|unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err == unix.EBADF {
		return nil
	}
	return fmt.Errorf("move_mount: %w", err)
}

// probeOverlay tells an overlay that parses options one by one (6.5) from an older one, to which
// the new mount interface only hands a string at the end: that one takes any option at first.
func probeOverlay() error {
	c, err := openContext("overlay")
	if err != nil {
		return err
	}
	defer c.close()
	if c.set(String("powernode-no-such-option", "x")) == nil {
		return fmt.Errorf("this kernel's overlay is older than Linux 6.5: %w", unix.EOPNOTSUPP)
	}
	return nil
}

// probeOptions has overlay parse options and mounts nothing.
func probeOptions(options ...Option) error {
	c, err := openContext("overlay")
	if err != nil {
		return err
	}
	defer c.close()
	for _, o := range options {
		if err := c.set(o); err != nil {
			return err
		}
	}
	return nil
}

// probeDataLayers parses both ways of naming a data-only layer.
func probeDataLayers() error {
	if probeOptions(String("lowerdir+", "/"), String("datadir+", "/")) == nil {
		return nil
	}
	return probeOptions(String("lowerdir", "/::/"))
}

// probeDetached makes an overlay of two directories of a tmpfs that is attached nowhere. Kernels
// that can't do that would say so in their log each time; they can't clone a detached mount
// either, and refuse that quietly.
func probeDetached() error {
	m, err := New("tmpfs", 0, String("size", "64k"))
	if err != nil {
		return err
	}
	defer m.Close()
	clone, err := Clone(m.f, false)
	if err != nil {
		return err
	}
	clone.Close()
	var layers []Option
	for _, name := range []string{"a", "b"} {
		path := procPath(m.f) + "/" + name
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		layers = append(layers, String("lowerdir+", path))
	}
	o, err := New("overlay", ReadOnly, layers...)
	if err != nil {
		return err
	}
	return o.Close()
}

// unnamedFile makes a file that has no name and is gone when it is closed.
func unnamedFile(dir string, data []byte) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make an unnamed file: %w", err)
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
