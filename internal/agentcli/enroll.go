package agentcli

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/nodehttp"
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
	NotAfter      time.Time        `json:"not_after"`
}

// enrollFlags are where the bootstrap comes from.
type enrollFlags struct {
	stateDir, identityFile, platformURL, caFile, instanceID, tokenFile string
	tries                                                              uint
}

func enrollCommand(app *cli.App) *cobra.Command {
	var f enrollFlags
	cmd := &cobra.Command{
		Use:   "enroll",
		Short: "Exchange a bootstrap token for this node's certificate",
		Long: `Exchange a bootstrap token for this node's certificate. The private key is on the disk before the
first request, so that a lost reply costs nothing: run it again, and the platform gives the same
certificate. A node whose credentials serve is left as it is.

Without --platform-url the identity comes from the usual sources; see introspect --sources.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			bootstrap, wish, err := f.bootstrap(app)
			if err != nil {
				return err
			}
			c, situation, err := enroll.Ensure(cmd.Context(), enroll.Options{
				Dir: boot.PKIDir(f.stateDir), Wish: wish, Discover: bootstrap,
				AgentVersion: version.Get().Version, Architecture: runtime.GOARCH,
				Backoff: nodehttp.Backoff{Tries: f.tries},
				Notify: func(err error, wait time.Duration) {
					fmt.Fprintf(app.Err, "%s; trying again in %s\n", cli.Printable(err.Error()), wait.Round(100*time.Millisecond))
				},
			})
			if err != nil {
				return err
			}
			doc := enrollDoc{situation, c.InstanceID, c.PlatformURL, c.CertificateID, c.Leaf.NotAfter}
			return app.Print(doc, func(w io.Writer) error {
				return cli.Pairs(w, [][2]string{
					{"node", doc.InstanceID},
					{"platform", doc.PlatformURL},
					{"certificate until", doc.NotAfter.UTC().Format(time.RFC3339)},
					{"credentials were", situation.String()},
				})
			})
		},
	}
	stateFlag(cmd, &f.stateDir)
	flags := cmd.Flags()
	flags.StringVar(&f.identityFile, "identity-file", "", "an identity.cfg to read instead of the usual sources")
	flags.StringVar(&f.platformURL, "platform-url", "", "the platform's https URL")
	flags.StringVar(&f.caFile, "ca-file", "", "PEM file of the platform's CA")
	flags.StringVar(&f.instanceID, "instance-id", "", "the instance that this node is; the token knows it too")
	flags.StringVar(&f.tokenFile, "token-file", "", "file with the bootstrap token, - for standard input")
	flags.UintVar(&f.tries, "tries", 3, "how often to try while the platform can't be reached; 0 is for ever")
	cmd.MarkFlagsRequiredTogether("platform-url", "ca-file", "token-file")
	cmd.MarkFlagsMutuallyExclusive("identity-file", "platform-url")
	return cmd
}

// bootstrap returns how to find out what to enroll with, and what the flags insist on.
func (f *enrollFlags) bootstrap(app *cli.App) (func(context.Context) (enroll.Bootstrap, error), enroll.Wish, error) {
	if f.platformURL == "" {
		return func(ctx context.Context) (enroll.Bootstrap, error) {
			i, _, err := (identity.Resolver{Sources: usualPlaces(f.identityFile).Sources()}).Resolve(ctx)
			return enroll.Bootstrap{PlatformURL: i.PlatformURL, CAPEM: i.CAPEM, Token: i.Token, InstanceID: i.InstanceID}, err
		}, enroll.Wish{}, nil
	}
	url, err := nodehttp.ParsePlatformURL(f.platformURL)
	if err != nil {
		return nil, enroll.Wish{}, err
	}
	ca, err := readBounded(f.caFile, nil)
	if err != nil {
		return nil, enroll.Wish{}, err
	}
	wish := enroll.Wish{PlatformURL: url, InstanceID: f.instanceID, CAPEM: ca}
	return func(context.Context) (enroll.Bootstrap, error) {
		token, err := f.readToken(app)
		return enroll.Bootstrap{PlatformURL: url, CAPEM: ca, Token: token, InstanceID: f.instanceID}, err
	}, wish, nil
}

// readToken reads the token only once it is needed: it may come from standard input.
func (f *enrollFlags) readToken(app *cli.App) (secret.Text, error) {
	var stdin io.Reader
	if f.tokenFile == "-" {
		stdin = app.In
	}
	text, err := readBounded(f.tokenFile, stdin)
	if err != nil {
		return secret.Text{}, err
	}
	token, err := identity.ParseToken(firstLine(text))
	if err != nil {
		return token, fault.New(fault.Refuse, fault.Input, "give the whole token that powernode token create printed", "read the token in %s: %w", f.tokenFile, err)
	}
	return token, nil
}

// smallFile bounds files that a person names on the command line, in bytes.
const smallFile = 1 << 20

// readBounded reads a file of at most smallFile bytes, or from instead where it isn't nil.
func readBounded(path string, from io.Reader) ([]byte, error) {
	if from == nil {
		f, err := os.Open(path)
		if err != nil {
			return nil, fault.New(fault.Refuse, fault.Input, "name a file that can be read", "%w", err)
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, smallFile+1))
	if err == nil && len(data) > smallFile {
		err = fmt.Errorf("it is larger than %d bytes", smallFile)
	}
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "name another file", "read %s: %w", path, err)
	}
	return data, nil
}

// firstLine returns the text up to the first line end.
func firstLine(text []byte) string {
	for i, c := range text {
		if c == '\n' || c == '\r' {
			return string(text[:i])
		}
	}
	return string(text)
}
