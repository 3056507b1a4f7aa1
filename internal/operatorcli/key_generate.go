package operatorcli

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/signing"
)

// keyDoc is the documented shape of `key generate --output json`.
type keyDoc struct {
	ID         string `json:"id"`
	PrivateKey string `json:"private_key"`
	PublicKey  string `json:"public_key"`
}

func keyGenerateCommand(app *cli.App) *cobra.Command {
	var prefix, passwordFile string
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Make a P-256 signing key in cosign's format",
		Long: `Make a P-256 signing key: PREFIX.key, encrypted under a password, and PREFIX.pub. Both are files
that cosign reads. The password comes from --password-file, from $POWERNODE_KEY_PASSWORD or
$COSIGN_PASSWORD, or from the terminal; an empty one protects nothing. Files that exist are kept.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			password, err := passwordSource(app, passwordFile).Read(true)
			if err != nil {
				return err
			}
			key, err := signing.GenerateKey()
			if err != nil {
				return err
			}
			sealed, err := key.Seal(password)
			if err != nil {
				return err
			}
			doc := keyDoc{ID: key.ID(), PrivateKey: prefix + ".key", PublicKey: prefix + ".pub"}
			if err := createFile(doc.PrivateKey, sealed, 0o600); err != nil {
				return err
			}
			if err := createFile(doc.PublicKey, key.PublicPEM(), 0o644); err != nil {
				return errors.Join(err, os.Remove(doc.PrivateKey))
			}
			return app.Print(doc, func(w io.Writer) error {
				return cli.Pairs(w, [][2]string{{"key", doc.ID}, {"private key", doc.PrivateKey}, {"public key", doc.PublicKey}})
			})
		},
	}
	cmd.Flags().StringVar(&prefix, "out", "powernode", "write OUT.key and OUT.pub")
	cmd.Flags().StringVar(&passwordFile, "password-file", "", "file whose first line is the password")
	return cmd
}

// passwordSource says where the password of a key comes from.
func passwordSource(app *cli.App, file string) signing.PasswordSource {
	source := signing.PasswordSource{File: file, LookupEnv: os.LookupEnv}
	if tty, ok := app.In.(*os.File); ok {
		source.Prompt = signing.TerminalPrompt(tty, app.Err)
	}
	return source
}

// createFile writes a new file and refuses to replace one.
func createFile(path string, data []byte, perm fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if errors.Is(err, fs.ErrExist) {
		return fault.New(fault.Refuse, fault.Destructive, "choose another name with --out", "%s is there already", path)
	}
	if err != nil {
		if err = durable.Diagnose(filepath.Dir(path), err); fault.AreaOf(err) == fault.Mount {
			return err
		}
		return fault.New(fault.Refuse, fault.Input, "choose a place that can be written with --out", "%w", err)
	}
	if err := fillFile(f, data); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// fillFile writes a new file's content to the disk and closes it.
func fillFile(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return durable.Diagnose(filepath.Dir(f.Name()), errors.Join(err, f.Close()))
}
