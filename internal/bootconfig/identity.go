package bootconfig

import (
	"fmt"
	"slices"
	"strings"
)

// identityKeys are the parameters that package identity reads; ca is the existing platform's netboot
// script's.
var identityKeys = []string{
	"instance_uuid", "bootstrap_token", "platform_url", "ca_pem", "ca_file", "ca_url", "ca", "ca_sha256", "proxy", "clock",
}

// identitySources are the names of the sources of identity, in their order.
var identitySources = []string{
	"dmi", "cmdline", "fw_cfg", "smbios", "credentials", "boot", "file", "nocloud", "aws", "gcp", "azure", "digitalocean", "hetzner", "claim",
}

// IdentitySources returns the names of the sources of identity, in their order.
func IdentitySources() []string { return slices.Clone(identitySources) }

// ParseIdentity reads names of sources of identity, separated by commas.
func ParseIdentity(s string) ([]string, error) {
	var names []string
	for _, name := range strings.Split(s, ",") {
		name = strings.TrimSpace(name)
		if !slices.Contains(identitySources, name) {
			return nil, fmt.Errorf("%.40q is no source of identity; they are %s", name, strings.Join(identitySources, ", "))
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// identityMistaken keeps the names that are known, and be it none. All sources would be more than was asked for, as those on
// a stranger's stick, and a boot that ends might be one of a node whose credentials need no source.
func identityMistaken(c *Config, value string) {
	c.Identity = []string{}
	for name := range strings.SplitSeq(value, ",") {
		if names, err := ParseIdentity(name); err == nil && !slices.Contains(c.Identity, names[0]) {
			c.Identity = append(c.Identity, names[0])
		}
	}
}

func identitySet(c *Config, value string) bool {
	names, err := ParseIdentity(value)
	if err == nil {
		c.Identity = names
	}
	return err == nil
}
