package agentcli

import (
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/bootconfig"
	"github.com/powernode/powernode-agent/internal/device"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity/places"
)

// identitySourceFlag adds --identity-source to a command.
func identitySourceFlag(cmd *cobra.Command, value *string) {
	cmd.Flags().StringVar(value, "identity-source", "",
		"the sources of identity that count, separated by commas (default: all; a cloud only where the firmware says so)")
}

// identitySources reads the value of --identity-source; nil are all.
func identitySources(value string) ([]string, error) {
	if value == "" {
		return nil, nil
	}
	names, err := bootconfig.ParseIdentity(value)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "see docs/boot.md", "--identity-source: %w", err)
	}
	return names, nil
}

// usualPlaces are where the sources of identity look, for commands on the running node whose root directory root is. Those that
// counted at boot count there: by the facts of the boot or, on a system that this agent didn't boot, by the kernel command line.
// Without a root, as in tests, none does.
func usualPlaces(root, file string) places.Places {
	if root == "" {
		return places.Places{IdentityFile: file, Only: []string{}}
	}
	sys := filepath.Join(root, "sys")
	where := places.Places{
		IdentityFile: file, Cmdline: filepath.Join(root, "proc", "cmdline"), Sys: sys,
		Devices: device.Options{Sysfs: sys, Dev: filepath.Join(root, "dev")},
	}
	if facts, err := boot.ReadFacts(root); err == nil {
		where.Only = facts.IdentitySources
	} else {
		where.Only = bootedWith(where.Cmdline).Identity
	}
	return where
}

// bootedWith returns what the kernel command line in a file sets. What it sets wrongly doesn't count: the boot has
// said so.
func bootedWith(path string) bootconfig.Config {
	f, err := os.Open(path)
	if err != nil {
		return bootconfig.Default()
	}
	defer f.Close()
	line, err := io.ReadAll(io.LimitReader(f, bootconfig.CmdlineMax))
	if err != nil {
		return bootconfig.Default()
	}
	config, _, err := bootconfig.Load(nil, string(line))
	if err != nil {
		return bootconfig.Default()
	}
	return config
}
