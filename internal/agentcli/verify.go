package agentcli

import (
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/signature"
)

// verifyFlags are the flags of verify. Those of a plain file have cosign's names and meaning.
type verifyFlags struct {
	stateDir, trust, repository, arch string

	bundle, key, identity, issuer, trustedRoot string
}

// verifyDoc is the documented shape of `verify --output json`. It is printed only when every
// check ran and passed.
type verifyDoc struct {
	// Kind is "module", "layout" or "blob".
	Kind     string          `json:"kind"`
	Subject  string          `json:"subject"`
	Name     string          `json:"name,omitempty"`
	Version  string          `json:"version,omitempty"`
	Digest   string          `json:"manifest_digest,omitempty"`
	Seal     fsverity.Digest `json:"seal,omitzero"`
	Objects  int             `json:"objects,omitempty"`
	SignedBy string          `json:"signed_by"`
	// Checks are all that ran, in order; each passed.
	Checks []signature.Check `json:"checks"`
}

func verifyCommand(app *cli.App) *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify MODULE | LAYOUT | FILE | sha256:DIGEST",
		Short: "Verify a module of the store, an OCI layout, or a signed file, without any network",
		Long: `Verify offline, and say which check failed and why. The exit code is 0 only when every check ran and
passed, and 2 when one said no.

  verify nginx                 a module of the store, by name, NAME@VERSION or manifest digest:
                               signature under the trust policy, seal, and every object
  verify ./nginx-layout        an OCI layout, a directory or a tar: signature, layers, seal
  verify FILE --bundle B …     a plain file, or its sha256:… digest, with the flags of cosign verify-blob:
                               --key, or --certificate-identity and --certificate-oidc-issuer with --trusted-root`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			doc, err := f.verify(cmd, app, args[0])
			if err != nil {
				return err
			}
			return app.Print(doc, doc.table)
		},
	}
	stateFlag(cmd, &f.stateDir)
	flags := cmd.Flags()
	flags.StringVar(&f.trust, "trust-policy", boot.TrustPath, "whose signatures count")
	flags.StringVar(&f.repository, "repository", "", "for a layout: the repository (host/path) under whose name the trust policy judges it")
	flags.StringVar(&f.arch, "arch", runtime.GOARCH, "for a layout with several architectures: which one")
	flags.StringVar(&f.bundle, "bundle", "", "for a file: the Sigstore bundle of its signature")
	flags.StringVar(&f.key, "key", "", "for a file: the PEM public key that must have signed it")
	flags.StringVar(&f.identity, "certificate-identity", "", "for a file: the exact identity of a keyless signer")
	flags.StringVar(&f.issuer, "certificate-oidc-issuer", "", "for a file: the exact OIDC issuer of a keyless signer")
	flags.StringVar(&f.trustedRoot, "trusted-root", "", "for a file: the trusted_root.json of certificates and logs")
	cmd.MarkFlagsMutuallyExclusive("bundle", "repository")
	cmd.MarkFlagsMutuallyExclusive("key", "certificate-identity")
	return cmd
}

// verify chooses by the flags and by what the argument names.
func (f *verifyFlags) verify(cmd *cobra.Command, app *cli.App, subject string) (*verifyDoc, error) {
	if f.bundle != "" {
		return f.verifyBlob(app, subject)
	}
	for _, name := range []string{"key", "certificate-identity", "certificate-oidc-issuer", "trusted-root"} {
		if cmd.Flags().Changed(name) {
			return nil, fault.New(fault.Refuse, fault.Input, "name the signature with --bundle", "--%s is for a signed file", name)
		}
	}
	if _, err := os.Stat(subject); err == nil {
		return f.verifyLayout(cmd.Context(), subject)
	}
	return f.verifyStored(cmd.Context(), subject)
}

// verifyBlob verifies a plain file, or one that is known by its digest.
func (f *verifyFlags) verifyBlob(app *cli.App, subject string) (*verifyDoc, error) {
	options := signature.BlobOptions{CertificateIdentity: f.identity, CertificateOIDCIssuer: f.issuer}
	for _, file := range []struct {
		path string
		into *[]byte
	}{{f.bundle, &options.Bundle}, {f.key, &options.Key}, {f.trustedRoot, &options.TrustedRoot}} {
		if file.path == "" {
			continue
		}
		text, err := readBounded(file.path, nil)
		if err != nil {
			return nil, err
		}
		*file.into = text
	}
	if artifact, err := os.Open(subject); err == nil {
		defer artifact.Close()
		options.Artifact = artifact
	} else if len(subject) > 7 && subject[:7] == "sha256:" {
		options.Digest = subject
	} else {
		return nil, fault.New(fault.Refuse, fault.Input, "name a file, or its digest as sha256:…", "%w", err)
	}
	verified, err := signature.VerifyBlob(options)
	if err != nil {
		return nil, err
	}
	return &verifyDoc{Kind: "blob", Subject: subject, SignedBy: verified.Signer(), Checks: verified.Checks}, nil
}

func (d *verifyDoc) table(w io.Writer) error {
	pairs := [][2]string{{"verified", d.Subject}, {"signed by", d.SignedBy}}
	if d.Name != "" {
		pairs = append(pairs, [2]string{"module", d.Name + " " + d.Version}, [2]string{"manifest", d.Digest}, [2]string{"seal", d.Seal.String()})
	}
	if d.Objects > 0 {
		pairs = append(pairs, [2]string{"objects", fmt.Sprintf("%d, the bytes of each", d.Objects)})
	}
	for _, c := range d.Checks {
		pairs = append(pairs, [2]string{"check " + string(c.Name), c.Detail})
	}
	return cli.Pairs(w, pairs)
}
