package boot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/switchroot"
)

// rootDir is where the union is mounted until it becomes "/", and upperDir where the file system
// of the upper is.
var (
	rootDir  = filepath.Join(RunDir, "root")
	upperDir = filepath.Join(RunDir, "upper")
)

// mount makes the union of the proven root image, the objects and a fresh upper, and checks that
// its init can be started. A refusal leaves nothing mounted.
func (b *boot) mount(context.Context) (string, error) {
	upper, work, err := b.makeUpper()
	if err != nil {
		return "", err
	}
	defer upper.Close()
	defer work.Close()
	image, err := b.store.OpenRootImage(b.generation.RootDigest)
	if err != nil {
		return "", err
	}
	defer image.Close()
	union, err := mount.Union(mount.UnionSpec{
		Image: image, Digest: b.generation.RootDigest, Objects: b.store.ObjectsDir(),
		Upper: upper, Work: work, Level: b.level,
	})
	if err != nil {
		return "", err
	}
	defer union.Close()
	if err := os.MkdirAll(rootDir, 0o755); err != nil {
		return "", fmt.Errorf("mount the root: %w", err)
	}
	if err := union.Attach(rootDir); err != nil {
		return "", err
	}
	if b.facts.Mount, err = union.ID(); err != nil {
		return "", err
	}
	if err := b.checkRoot(); err != nil {
		_ = mount.Unmount(rootDir, mount.Claim{Digest: b.generation.RootDigest, ID: b.facts.Mount})
		return "", err
	}
	return fmt.Sprintf("root %s, integrity level %s", b.generation.RootDigest, b.level), nil
}

// makeUpper mounts one tmpfs for the upper and work directories, which must share a mount.
func (b *boot) makeUpper() (upper, work *os.File, err error) {
	if err := os.MkdirAll(upperDir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the writable layer: %w", err)
	}
	fs, err := mount.New("tmpfs", 0, mount.String("mode", "700"), mount.String("size", b.config.UpperSize))
	if err != nil {
		return nil, nil, fault.New(fault.Refuse, fault.Mount, "give --upper-size a size like 512m or 25%",
			"make a writable layer of size %s: %w", b.config.UpperSize, err)
	}
	defer fs.Close()
	if err := fs.Attach(upperDir); err != nil {
		return nil, nil, err
	}
	var dirs [2]*os.File
	for i, d := range []struct {
		name string
		perm os.FileMode
	}{{"upper", 0o755}, {"work", 0o700}} {
		path := filepath.Join(upperDir, d.name)
		if err = os.Mkdir(path, d.perm); err == nil {
			dirs[i], err = os.Open(path)
		}
		if err != nil {
			if dirs[0] != nil {
				dirs[0].Close()
			}
			return nil, nil, fmt.Errorf("make the writable layer: %w", err)
		}
	}
	return dirs[0], dirs[1], nil
}

// checkRoot refuses a root whose init this machine can't start.
func (b *boot) checkRoot() error {
	root, err := os.Open(rootDir)
	if err != nil {
		return err
	}
	defer root.Close()
	return switchroot.CheckProgram(root, b.config.Init[0])
}
