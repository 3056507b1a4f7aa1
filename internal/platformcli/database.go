package platformcli

import (
	"github.com/spf13/pflag"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/platform/secretfile"
)

// databaseFlags say where the records are, and what several platforms have in common. Secrets are in files: who lists the machine's
// processes sees every flag.
type databaseFlags struct {
	url, passwordFile, sharedSecretFile string
}

func (f *databaseFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "database", "", "keep the records in PostgreSQL: postgres://user@host/database, without a password (default: SQLite in the data directory)")
	flags.StringVar(&f.passwordFile, "database-password-file", "", "the file with the password of the database's user; it is read anew for each connection")
	flags.StringVar(&f.sharedSecretFile, "shared-secret-file", "",
		"the file with the secret by which several platforms over one database share the certificate authority; all have the same")
}

// apply checks the flags and turns them into what the platform is made of.
func (f *databaseFlags) apply(o *platform.Options) error {
	if f.url == "" {
		for flag, value := range map[string]string{"--database-password-file": f.passwordFile, "--shared-secret-file": f.sharedSecretFile} {
			if value != "" {
				return fault.New(fault.Refuse, fault.Input, "name a PostgreSQL with --database too", "%s is of no use with SQLite", flag)
			}
		}
		return nil
	}
	var err error
	if o.Database, err = db.ParsePostgres(f.url, f.passwordFile); err != nil {
		return err
	}
	if f.sharedSecretFile != "" {
		o.SharedSecret, err = secretfile.Read(f.sharedSecretFile, "--shared-secret-file")
	}
	return err
}
