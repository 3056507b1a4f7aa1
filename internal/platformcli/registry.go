package platformcli

import (
	"github.com/spf13/pflag"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/external"
)

// registryFlags say which registry the modules are in.
type registryFlags struct{ url, credentialsFile, caFile, dir string }

const flagRegistryCA = "--registry-ca"

func (f *registryFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "registry", "", "take the modules from another OCI registry: https://host or https://host/prefix (default: the platform's own)")
	flags.StringVar(&f.credentialsFile, external.Flag[2:], "",
		`the file with that registry's users as JSON: {"username": …, "password": …, "nodes": {"username": …, "password": …}}; it is read anew each time`)
	flags.StringVar(&f.caFile, flagRegistryCA[2:], "", "a file with further authorities (PEM) that the platform knows that registry by, beside the system's")
	flags.StringVar(&f.dir, "registry-dir", "", "the directory of the registry's contents, for several platforms that share it (default: in the data directory)")
}

// apply checks the flags and turns them into what the platform is made of.
func (f *registryFlags) apply(o *platform.Options) error {
	o.RegistryDir, o.RegistryCredentials = f.dir, f.credentialsFile
	switch {
	case f.url == "" && f.credentialsFile != "":
		return fault.New(fault.Refuse, fault.Input, "name the registry with --registry too", "%s is of no use with the platform's own registry", external.Flag)
	case f.url == "" && f.caFile != "":
		return fault.New(fault.Refuse, fault.Input, "name the registry with --registry too", "%s is of no use with the platform's own registry", flagRegistryCA)
	case f.url == "":
		return nil
	case f.dir != "":
		return fault.New(fault.Refuse, fault.Input, "leave out --registry-dir", "with --registry the platform keeps no contents")
	}
	var err error
	if f.caFile != "" {
		if o.RegistryTLS, err = ociimage.TrustAlso(f.caFile, flagRegistryCA); err != nil {
			return err
		}
	}
	o.Registry, err = external.ParseURL(f.url)
	return err
}
