package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/device"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/identity/userdata"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// The sources' names.
const (
	BootName    = "boot"
	NoCloudName = "nocloud"
)

// Boot is the identity.cfg in the root directory of the boot partition. Boot partitions are those that
// the partition table calls an EFI system or an extended boot loader partition, and file systems and
// partitions with one of the labels of bootLabels, in any case of letters. One that is mounted is left
// alone: what the device holds may be older than what was written to its files.
type Boot struct {
	Devices device.Options
}

// NoCloud is a volume labelled cidata or CIDATA, as QEMU hosts and cloud-init's tools make them
// (cloud-init, doc/rtd/reference/datasources/nocloud.rst): FAT or ISO 9660, with the file user-data.
// What user-data says nothing about is looked for in meta-data too. It isn't looked for on the network.
type NoCloud struct {
	Devices device.Options
}

var bootLabels = []string{"boot", "bootfs", "system-boot", "powernode-boot", "xbootldr", "esp", "efi"}

const configName = "identity.cfg"

// configMax bounds an identity.cfg, in bytes.
const configMax = 64 << 10

// Name returns BootName.
func (Boot) Name() string { return BootName }

// Name returns NoCloudName.
func (NoCloud) Name() string { return NoCloudName }

// Find looks at every boot partition. Where several have an identity.cfg, one on a fixed disk counts
// before those on removable ones; several of equal rank that say different things are an error, since which
// would count isn't for the machine to guess. One that can't be read counts only where no other has one.
func (s Boot) Find(ctx context.Context) (identity.Found, error) {
	return find(ctx, s.Devices, "boot partition", isBoot, func(v files, d device.Listed) (identity.Found, error) {
		text, err := v.readFile(configName, configMax)
		if errors.Is(err, fs.ErrNotExist) {
			return identity.Found{}, identity.NotFound("%s has no %s", d.Path, configName)
		}
		if err != nil {
			return identity.Found{}, err
		}
		return readConfig(v, text, d.Path+":"+configName)
	})
}

// Find looks at every volume of that label.
func (s NoCloud) Find(ctx context.Context) (identity.Found, error) {
	return find(ctx, s.Devices, "volume labelled cidata", nil, func(v files, d device.Listed) (identity.Found, error) {
		found, err := identity.Found{}, identity.NotFound("%s has no user-data", d.Path)
		for _, name := range []string{"user-data", "meta-data"} {
			text, readErr := v.readFile(name, userdata.MaxBytes)
			if errors.Is(readErr, fs.ErrNotExist) {
				continue
			}
			if readErr != nil {
				return identity.Found{}, readErr
			}
			raw, parseErr := userdata.Parse(text)
			if parseErr == nil {
				return raw.Check(d.Path+":"+name, nil)
			}
			if !errors.Is(parseErr, identity.ErrNotFound) {
				return identity.Found{}, fmt.Errorf("%s: %w", name, parseErr)
			}
			if name == "user-data" {
				err = identity.NotFound("%s: %v", d.Path, parseErr)
			}
		}
		return found, err
	})
}

func isBoot(d device.Listed) bool {
	switch d.PartType {
	case device.TypeESP, device.TypeBoot, device.TypeMBRBoot, device.TypeMBRESP:
		return true
	}
	return isBootLabel(d.PartLabel) || isBootLabel(d.Label)
}

func isBootLabel(label string) bool { return slices.Contains(bootLabels, strings.ToLower(label)) }

// readConfig reads an identity.cfg whose CA_PEM_FILE lies beside it: named by itself, or below the
// directory that boot partitions are usually mounted at.
func readConfig(v files, text []byte, where string) (identity.Found, error) {
	raw, err := identity.ParseFile(text)
	if err != nil {
		return identity.Found{}, err
	}
	if raw.IsZero() {
		return identity.Found{}, identity.NotFound("%s names nothing of the node", where)
	}
	if raw.CAFile != "" && raw.CA == "" {
		name := path.Clean(raw.CAFile)
		for _, dir := range []string{"/boot/firmware/", "/boot/efi/", "/boot/", "/efi/"} {
			if rest, ok := strings.CutPrefix(name, dir); ok {
				name = rest
				break
			}
		}
		if strings.Contains(name, "/") {
			return identity.Found{}, fault.New(fault.Refuse, fault.Input, "put it beside identity.cfg", "%s: %.100q isn't a file of the volume's root directory", identity.FileKey(identity.FieldCAFile), raw.CAFile)
		}
		pem, err := v.readFile(name, nodehttp.MaxCABytes)
		if err != nil {
			return identity.Found{}, fmt.Errorf("%s: %w", identity.FileKey(identity.FieldCAFile), err)
		}
		raw.CA, raw.CAFile = string(pem), ""
	}
	return raw.Check(where, identity.FileKey)
}
