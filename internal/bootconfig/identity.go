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

func identitySet(c *Config, value string) bool {
	names, err := ParseIdentity(value)
	if err == nil {
		c.Identity = names
	}
	return err == nil
}
