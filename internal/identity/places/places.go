// Package places knows all places that may tell who a node is, and their order.
//
// It promises the order that docs/boot.md gives, and that no source sends a packet unless the machine's
// firmware says that it is in that cloud, or a person asked for the source by name. It trusts what
// packages identity, volume and cloud promise of the sources themselves.
package places

import (
	"slices"

	"github.com/powernode/powernode-agent/internal/device"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/identity/cloud"
	"github.com/powernode/powernode-agent/internal/identity/volume"
)

// Places says where the sources look; an empty field is the usual place.
type Places struct {
	// IdentityFile is a file that a person named: it is then the only source.
	IdentityFile string
	// Only are the names of the sources that count, as bootconfig.ParseIdentity returns them; nil are all, and empty is none.
	// A cloud that is named is asked whatever the firmware says.
	Only []string
	// Cmdline is the kernel command line's file, FWCfg the directory of QEMU's fw_cfg, Sys the mount
	// point of sysfs, Run the directory of systemd's credentials.
	Cmdline, FWCfg, Sys, Run string
	// Files are the identity.cfg files, in order; nil are /boot, /etc and /persist/etc.
	Files []string
	// Devices says where block devices are looked for.
	Devices device.Options
}

// The names of sources that are no source of package identity's: all files together, and the claim,
// which isn't a place.
const (
	FileName  = "file"
	ClaimName = "claim"
)

// Sources returns the sources in their order.
func (p Places) Sources() []identity.Source {
	if p.IdentityFile != "" {
		return []identity.Source{identity.File{Path: p.IdentityFile}}
	}
	var sources []identity.Source
	add := func(name string, more ...identity.Source) {
		if p.wants(name) {
			sources = append(sources, more...)
		}
	}
	for _, s := range []identity.Source{
		identity.DMI{Sys: p.Sys},
		identity.Cmdline{Path: p.Cmdline},
		identity.FWCfg{Root: p.FWCfg},
		identity.SMBIOS{Sys: p.Sys},
		identity.Credentials{Run: p.Run},
		volume.Boot{Devices: p.Devices},
	} {
		add(s.Name(), s)
	}
	files := p.Files
	if files == nil {
		files = identity.ConfigPaths()
	}
	for _, f := range files {
		add(FileName, identity.File{Path: f})
	}
	add(volume.NoCloudName, volume.NoCloud{Devices: p.Devices})
	for _, s := range cloud.Sources(cloud.Options{Sys: p.Sys, Ask: p.Only}) {
		add(s.Name(), s)
	}
	return sources
}

// Claim reports whether a machine that has no token may ask its platform to be claimed. Where a person named a file, and
// not the claim, the file was to have one.
func (p Places) Claim() bool {
	return p.IdentityFile == "" && p.wants(ClaimName) || slices.Contains(p.Only, ClaimName)
}

func (p Places) wants(name string) bool { return p.Only == nil || slices.Contains(p.Only, name) }
