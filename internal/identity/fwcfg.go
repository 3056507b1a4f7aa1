package identity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// FWCfg is what a QEMU host hands to its guest: -fw_cfg name=opt/com.powernode/KEY,file=… with the
// keys instance_uuid, bootstrap_token, platform_url and ca_pem.
type FWCfg struct {
	// Root is the kernel module's directory; "" is /sys/firmware/qemu_fw_cfg.
	Root string
}

// Name returns "fw_cfg".
func (FWCfg) Name() string { return "fw_cfg" }

// fwCfgDir lies below Root. Its entries are symbolic links to by_key, which also lies below Root
// (Linux, Documentation/ABI/testing/sysfs-firmware-qemu_fw_cfg).
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
	if _, err := root.Stat(fwCfgDir); absent(err) {
		return Found{}, NotFound("the host gave no opt/com.powernode/*")
	}
	var raw Raw
	for _, f := range Fields() {
		if f == FieldCAFile { // the host doesn't know the guest's files
			continue
		}
		limit := int64(4 << 10)
		if f == FieldCA {
			limit = nodehttp.MaxCABytes
		}
		if *raw.At(f), err = readFWCfg(root, fwCfgDir+"/"+f.String()+"/raw", limit); err != nil {
			return Found{}, fmt.Errorf("read opt/com.powernode/%s: %w", f, err)
		}
	}
	if raw.IsZero() {
		return Found{}, NotFound("the host gave no identity in opt/com.powernode/*")
	}
	return raw.Check(path, func(f Field) string { return "opt/com.powernode/" + f.String() })
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
