package agentcli

import (
	"fmt"
	"io"
	goruntime "runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/identity/claim"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/runtime"
	"github.com/powernode/powernode-agent/internal/secret"
	"github.com/powernode/powernode-agent/internal/version"
)

// enrollDoc is the documented shape of `enroll --output json`.
type enrollDoc struct {
	// Situation is what was found: "none", "key only", "valid" and so on.
	Situation     enroll.Situation `json:"situation"`
	InstanceID    string           `json:"instance_id"`
	PlatformURL   string           `json:"platform_url"`
	CertificateID string           `json:"certificate_id,omitempty"`
	Serial        string           `json:"serial"`
	NotAfter      time.Time        `json:"not_after"`
	// Key is where the private key lives: "file" or "tpm".
	Key enroll.KeyKind `json:"key"`
}

// enrollFlags are where the bootstrap comes from, and how to go about it.
type enrollFlags struct {
	stateDir, identityFile, identitySources, platformURL, caFile, instanceID string
	caURL, caSHA256, tokenFile, token, clock, proxy, key, trust              string
	renew, claim                                                             bool
	tries                                                                    uint
}

func enrollCommand(app *cli.App) *cobra.Command {
	var f enrollFlags
	cmd := &cobra.Command{
		Use:   "enroll",
		Short: "Exchange a bootstrap token for this node's certificate, or renew it",
		Long: `Exchange a bootstrap token for this node's certificate. The private key is on the disk before the
first request, so that a lost reply costs nothing: run it again, and the platform gives the same
certificate. A node whose credentials serve is left as it is; one whose certificate has ended proves
its old key, and needs no token unless the platform says so.

Without --platform-url the identity comes from the usual sources (see introspect --sources), and
where a token is given to a node that was enrolled before, from its credentials. The token comes from
--token-file, or from the systemd credential powernode.bootstrap_token.

With --claim a machine that has no token shows a claim code, and waits until an operator has accepted it
with powernode claim accept.

With --renew the certificate is replaced now, by one for a new key. Where an operator is to approve
that, it ends with the platform's exit code and is to be run again; with --tries 0 it waits. A platform
that doesn't know the certificate any more takes the token of --token-file instead.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := f.options(cmd, app)
			if err != nil {
				return err
			}
			c, situation, err := enroll.Ensure(cmd.Context(), options)
			if settled := claim.Settle(boot.ClaimDir(f.stateDir), err, nil); settled != nil {
				fmt.Fprintf(app.Err, "warning: %s\n", cli.Printable(settled.Error()))
			}
			if err != nil {
				return err
			}
			doc := enrollDoc{situation, c.InstanceID, c.PlatformURL, c.CertificateID, c.Serial(), c.Leaf.NotAfter, c.KeyKind()}
			return app.Print(doc, func(w io.Writer) error {
				return cli.Pairs(w, [][2]string{
					{"node", doc.InstanceID},
					{"platform", doc.PlatformURL},
					{"certificate", doc.Serial},
					{"certificate until", doc.NotAfter.UTC().Format(time.RFC3339)},
					{"key", string(doc.Key)},
					{"credentials were", situation.String()},
				})
			})
		},
	}
	stateFlag(cmd, &f.stateDir)
	flags := cmd.Flags()
	flags.StringVar(&f.identityFile, "identity-file", "", "an identity.cfg to read instead of the usual sources")
	identitySourceFlag(cmd, &f.identitySources)
	flags.StringVar(&f.platformURL, "platform-url", "", "the platform's https URL")
	flags.StringVar(&f.caFile, "ca-file", "", "PEM file of the platform's CA")
	flags.StringVar(&f.caSHA256, "ca-sha256", "", "SHA-256 fingerprint of the platform's CA certificate, which is then fetched from --ca-url or from the platform")
	flags.StringVar(&f.caURL, "ca-url", "", "where the platform's CA certificate can be had; needs --ca-sha256")
	flags.StringVar(&f.instanceID, "instance-id", "", "the instance that this node is; the token knows it too")
	flags.StringVar(&f.tokenFile, "token-file", "", "file with the bootstrap token, - for standard input")
	flags.StringVar(&f.token, "token", "", "the bootstrap token itself, which every process on this machine can read meanwhile")
	flags.StringVar(&f.clock, "clock", "", "judge certificates by the platform's signed time (platform) or by this machine's clock (local); kept (default platform)")
	flags.StringVar(&f.proxy, "proxy", "", "reach the platform through this HTTP proxy, http://[user:password@]host:port; kept; none for none")
	flags.StringVar(&f.key, "key", "", "where the private key lives: file, tpm, tpm-if-present (default: as the trust policy says)")
	flags.StringVar(&f.trust, "trust-policy", boot.TrustPath, "the trust policy, for its node_key")
	flags.BoolVar(&f.renew, "renew", false, "replace the certificate now, by one for a new key")
	flags.UintVar(&f.tries, "tries", 3, "how often to try while the platform can't be reached; 0 is for ever")
	cmd.MarkFlagsMutuallyExclusive("ca-file", "ca-url")
	cmd.MarkFlagsMutuallyExclusive("identity-file", "platform-url")
	flags.BoolVar(&f.claim, "claim", false, "without a token: show a claim code, and wait until an operator has accepted it")
	cmd.MarkFlagsMutuallyExclusive("token", "token-file", "claim")
	cmd.MarkFlagsMutuallyExclusive("renew", "claim")
	return cmd
}

// options puts the flags together.
func (f *enrollFlags) options(cmd *cobra.Command, app *cli.App) (enroll.Options, error) {
	o := enroll.Options{
		Dir: boot.PKIDir(f.stateDir), Now: f.renew, Clock: openClock(f.stateDir),
		AgentVersion: version.Get().Version, Architecture: goruntime.GOARCH, DMIUUID: runtime.ReadMachine("/sys").DMIUUID,
		Backoff: nodehttp.Backoff{Tries: f.tries}, Wait: f.tries == 0,
		Notify: func(err error, wait time.Duration) {
			fmt.Fprintf(app.Err, "%s; trying again in %s\n", cli.Printable(err.Error()), wait.Round(100*time.Millisecond))
		},
	}
	if o.Wait {
		o.Waits = func(w *enroll.Waiting) {
			fmt.Fprintf(app.Err, "waiting for an operator: %s\n", cli.Printable(w.Message))
		}
	}
	var err error
	if o.KeyKind, err = f.keyKind(); err != nil {
		return o, err
	}
	if cmd.Flags().Changed("clock") {
		local, err := parseClock(f.clock)
		if err != nil {
			return o, err
		}
		o.LocalClock = &local
	}
	if cmd.Flags().Changed("proxy") {
		proxy := secret.New(f.proxy)
		if f.proxy == "none" {
			proxy = secret.Text{}
		}
		if _, err := nodehttp.ParseProxy(proxy.Reveal()); err != nil {
			return o, err
		}
		o.Proxy = &proxy
	}
	if cmd.Flags().Changed("token") {
		fmt.Fprintln(app.Err, "warning: a token on the command line can be read by every process of this machine; use --token-file")
	}
	return o, f.source(app, &o)
}

// parseClock reports whether the node is to go by its own clock.
func parseClock(s string) (local bool, err error) {
	clock, err := identity.ParseClock(s)
	if err != nil {
		return false, fault.New(fault.Refuse, fault.Input, "use platform or local", "--clock: %w", err)
	}
	return clock == identity.ClockLocal, nil
}

// keyKind returns where the key is to live: what the flag says, and else the trust policy, where there is one.
func (f *enrollFlags) keyKind() (enroll.KeyKind, error) {
	if f.key != "" {
		return enroll.ParseKeyKind(f.key)
	}
	return policyKeyKind(f.trust), nil
}

// policyKeyKind returns what the trust policy says of the node's key; "", which is where the present one lives,
// where it can't be read: a certificate isn't kept from being replaced by that.
func policyKeyKind(path string) enroll.KeyKind {
	trust, err := boot.LoadTrust(path)
	if err != nil {
		return ""
	}
	return enroll.KeyKind(trust.NodeKey)
}
