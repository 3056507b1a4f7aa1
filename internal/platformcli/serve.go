package platformcli

import (
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/api"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/front"
	"github.com/powernode/powernode-agent/internal/version"
)

// minLife and maxLife are the bounds of --certificate-life: a node asks for the next certificate a minute after a
// failure at the soonest, and an authority lives for ten years.
const (
	minLife = time.Minute
	maxLife = 5 * 365 * 24 * time.Hour
)

// minHeartbeat and maxHeartbeat are the bounds of --heartbeat-interval, which are those that the agent keeps to whatever it is told.
const (
	minHeartbeat = 5 * time.Second
	maxHeartbeat = 5 * time.Minute
)

// serveFlags are the flags of `serve`.
type serveFlags struct {
	data          string
	database      databaseFlags
	registry      registryFlags
	listen        string
	publicURL     string
	names         []string
	renewExpired  string
	proxies       []string
	certHeader    string
	life          time.Duration
	heartbeat     time.Duration
	resetOperator bool
	logLevel      string
	logFormat     string
}

func serveCommand(app *cli.App) *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve nodes, operators and the module registry over HTTPS",
		Long: `Serve nodes, operators and the module registry over HTTPS.

The first start makes everything in the data directory: the certificate authority, the database,
the registry's storage, and operator.json, the credential file that powernode takes by --config.
Nothing else has to be installed. SIGTERM lets the requests under way end.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := f.options(app)
			if err != nil {
				return err
			}
			server, err := platform.Open(cmd.Context(), options)
			if err != nil {
				return err
			}
			return server.Serve(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.data, "data", "/var/lib/powernode-platform", "the data directory; it holds secrets and is for this program alone")
	f.database.register(flags)
	f.registry.register(flags)
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8443", "the address to listen on; port 0 takes a free one")
	flags.StringVar(&f.publicURL, "public-url", "", "the https URL by which nodes and operators reach the platform (default: the listening address)")
	flags.StringSliceVar(&f.names, "tls-name", nil, "a further host name or IP address for the server certificate")
	flags.StringVar(&f.renewExpired, "renew-expired", platform.DefaultRenewPolicy,
		"renew certificates that expired while their node was off: always, never, approval (an operator's), or 30d (that many days by itself, then by approval)")
	flags.DurationVar(&f.life, "certificate-life", ca.NodeLife, "how long a node's certificate lives; it is renewed after three quarters of that")
	flags.DurationVar(&f.heartbeat, "heartbeat-interval", api.HeartbeatInterval, "how often nodes report; after four times that without a word, and three minutes at least, a node is silent")
	flags.StringSliceVar(&f.proxies, "trusted-proxy", nil,
		"the address, or the network, of a proxy that ends TLS and passes clients' certificates and addresses on; every program there can be any node")
	flags.StringVar(&f.certHeader, "client-cert-header", string(front.DefaultHeader),
		"the header in which trusted proxies pass a client's certificate: X-SSL-Client-Cert (PEM in URL encoding, as nginx has it), or Client-Cert (RFC 9440)")
	flags.BoolVar(&f.resetOperator, "reset-operator", false, "replace the operator's token and write operator.json anew")
	flags.StringVar(&f.logLevel, "log-level", "info", "how much to log: debug, info, warn or error")
	flags.StringVar(&f.logFormat, "log-format", "text", "how to log: text or json")
	return cmd
}

// options checks the flags and turns them into what the platform is made of.
func (f *serveFlags) options(app *cli.App) (platform.Options, error) {
	o := platform.Options{Dir: f.data, Listen: f.listen, Names: f.names, ResetOperator: f.resetOperator, Version: version.Get().Version}
	if f.data == "" {
		return o, fault.New(fault.Refuse, fault.Input, "name a directory with --data", "the data directory has no name")
	}
	if err := f.database.apply(&o); err != nil {
		return o, err
	}
	if err := f.registry.apply(&o); err != nil {
		return o, err
	}
	for _, name := range f.names {
		if err := platform.CheckName(name); err != nil {
			return o, err
		}
	}
	var err error
	if f.publicURL != "" {
		if o.PublicURL, err = platform.ParsePublicURL(f.publicURL); err != nil {
			return o, err
		}
	}
	if o.RenewExpired, err = platform.ParseRenewPolicy(f.renewExpired); err != nil {
		return o, err
	}
	if o.TrustedProxies, err = front.ParseProxies(f.proxies); err != nil {
		return o, err
	}
	if o.CertificateHeader, err = front.ParseHeader(f.certHeader); err != nil {
		return o, err
	}
	if o.CertificateLife = f.life; f.life < minLife || f.life > maxLife {
		return o, fault.New(fault.Refuse, fault.Input, "use 2160h for 90 days", "a certificate's life of %s isn't between %s and %s", f.life, minLife, maxLife)
	}
	if o.HeartbeatInterval = f.heartbeat; f.heartbeat < minHeartbeat || f.heartbeat > maxHeartbeat || f.heartbeat%time.Second != 0 {
		return o, fault.New(fault.Refuse, fault.Input, "use 30s", "a heartbeat interval of %s isn't one of whole seconds between %s and %s", f.heartbeat, minHeartbeat, maxHeartbeat)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return o, fault.New(fault.Refuse, fault.Input, "use debug, info, warn or error", "unknown log level %q", f.logLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		o.Logger = slog.New(slog.NewTextHandler(app.Err, options))
	case "json":
		o.Logger = slog.New(slog.NewJSONHandler(app.Err, options))
	default:
		return o, fault.New(fault.Refuse, fault.Input, "use text or json", "unknown log format %q", f.logFormat)
	}
	return o, nil
}
