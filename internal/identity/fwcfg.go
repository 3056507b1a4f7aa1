package identity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/powernode/powernode-agent/internal/bootconfig"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// FWCfg is what a QEMU host hands to its guest: -fw_cfg name=opt/com.powernode/NAME,file=… or, as for systemd,
// name=opt/io.systemd.credentials/powernode.NAME,file=…, with the usual names of the fields but ca_file.
type FWCfg struct {
	// Root is the kernel module's directory; "" is /sys/firmware/qemu_fw_cfg.
	Root string
}

// Name returns "fw_cfg".
func (FWCfg) Name() string { return "fw_cfg" }

// fwCfgDirs lie below Root; of both, the first that gives a value counts. Their entries are symbolic links to
// by_key, which also lies below Root (Linux, Documentation/ABI/testing/sysfs-firmware-qemu_fw_cfg).
var fwCfgDirs = [...]struct{ dir, prefix string }{
	{fwCfgDir, ""},
	{"by_name/opt/io.systemd.credentials", bootconfig.Prefix},
}

const fwCfgDir = "by_name/opt/com.powernode"

// Find reads the keys.
func (s FWCfg) Find(context.Context) (Found, error) {
	path := s.Root
	if path == "" {
		path = "/sys/firmware/qemu_fw_cfg"
	}
	root, err := os.OpenRoot(path)
	switch {
	case absent(err):
		return Found{}, NotFound("there is no %s: not a QEMU machine, or the kernel module qemu_fw_cfg isn't loaded", path)
	case err != nil:
		return Found{}, err
	}
	defer root.Close()
	var raw Raw
	origin := map[Field]string{}
	for _, place := range fwCfgDirs {
		for _, f := range hostFields() {
			if *raw.At(f) != "" {
				continue
			}
			name := place.dir + "/" + place.prefix + f.String()
			origin[f] = strings.TrimPrefix(name, "by_name/")
			if *raw.At(f), err = readFWCfg(root, name+"/raw", limitOf(f)); err != nil {
				return Found{}, fmt.Errorf("read %s: %w", origin[f], err)
			}
		}
	}
	if raw.IsZero() {
		return Found{}, NotFound("the host gave no identity in opt/com.powernode/* or opt/io.systemd.credentials/powernode.*")
	}
	return raw.Check(path, func(f Field) string { return origin[f] })
}

// hostFields are what somebody outside of the machine can say: all but the name of a file of the machine.
func hostFields() []Field {
	return slices.DeleteFunc(Fields(), func(f Field) bool { return f == FieldCAFile })
}

// limitOf is the most that is read of a field, in bytes.
func limitOf(f Field) int64 {
	if f == FieldCA {
		return nodehttp.MaxCABytes
	}
	return 4 << 10
}

// readFWCfg returns a key's value without the white space and zero bytes that end it, or "" where
// the host gave no such key.
func readFWCfg(root *os.Root, name string, limit int64) (string, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := readAll(f, limit)
	if err != nil {
		return "", err
	}
	return strings.Trim(string(b), "\x00 \t\r\n"), nil
}
