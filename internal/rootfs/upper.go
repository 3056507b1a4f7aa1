package rootfs

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
)

// makeUpper mounts one tmpfs for the upper and work directories, which must share a mount.
func (r *Root) makeUpper() (upper, work *os.File, err error) {
	dir := r.spec.upperDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the writable layer: %w", err)
	}
	fs, err := mount.New("tmpfs", 0, mount.String("mode", "700"), mount.String("size", r.spec.Upper.Size))
	if err != nil {
		return nil, nil, fault.New(fault.Refuse, fault.Mount, "give --upper-size a size like 512m or 25%",
			"make a writable layer of size %s: %w", r.spec.Upper.Size, err)
	}
	defer fs.Close()
	if err := fs.Attach(dir); err != nil {
		return nil, nil, err
	}
	if r.upper, err = fs.ID(); err != nil {
		return nil, nil, err
	}
	return openLayer(dir)
}

// openLayer makes and opens the directories of a layer in dir.
func openLayer(dir string) (upper, work *os.File, err error) {
	var dirs [2]*os.File
	for i, d := range []struct {
		name string
		perm os.FileMode
	}{{"upper", 0o755}, {"work", 0o700}} {
		path := filepath.Join(dir, d.name)
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
