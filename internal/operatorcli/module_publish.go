package operatorcli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
	"github.com/powernode/powernode-agent/internal/publish"
	"github.com/powernode/powernode-agent/internal/signing"
)

// publishDoc is the documented shape of `module publish --output json`.
type publishDoc struct {
	publish.Published
	// Registered is the platform's view; missing with --no-register.
	Registered *operatorapi.Module `json:"registered,omitempty"`
}

// flagRegistryCA is the option that names a registry's authority.
const flagRegistryCA = "--registry-ca"

// publishFlags are the flags of module publish.
type publishFlags struct {
	repository, keyFile, passwordFile, variety, registryCA string
	priority, position                                     int
	noRegister                                             bool
}

func modulePublishCommand(app *cli.App, conn *connection) *cobra.Command {
	var f publishFlags
	cmd := &cobra.Command{
		Use:   "publish LAYOUT...",
		Short: "Seal, sign and push a module, and tell the platform of it",
		Long: `Seal, sign and push the module in an OCI layout (one layout for each architecture), and tell the
platform of it. The seal is computed from the layers; the signature covers it with the manifest and
is attached in both of cosign's forms.

The repository may leave out the host: the platform's registry is meant then, and only modules that
are in it can be made known to the platform. Another needs --no-register.

The platform's own registry is open to the operator's token. One that isn't the platform's own gets the
login that docker, oras or crane have kept for it in ~/.docker/config.json ($DOCKER_CONFIG), if any; its
certificate must be one that this system trusts, or --registry-ca.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			doc, err := f.run(cmd.Context(), app, conn, args)
			if err != nil {
				return err
			}
			return app.Print(doc, doc.table)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.repository, "repository", "", "where to push: host/path, or path (default modules/NAME)")
	flags.StringVar(&f.keyFile, "key", "powernode.key", "private key to sign with")
	flags.StringVar(&f.passwordFile, "password-file", "", "file whose first line is the key's password")
	flags.StringVar(&f.variety, "variety", "subscription", "the module's role: subscription, config or instance")
	flags.IntVar(&f.priority, "priority", 0, "priority within its category, 0 to 999; higher wins")
	flags.IntVar(&f.position, "category-position", -1, "the category's position, 0 to 999 (default the variety's: 10, 20 or 30)")
	flags.StringVar(&f.registryCA, flagRegistryCA[2:], "", "a file with further authorities (PEM) that a registry other than the platform's own is known by")
	flags.BoolVar(&f.noRegister, "no-register", false, "push only; don't tell the platform")
	return cmd
}

func (f *publishFlags) run(ctx context.Context, app *cli.App, conn *connection, paths []string) (publishDoc, error) {
	if err := f.check(); err != nil {
		return publishDoc{}, err
	}
	config, err := conn.config()
	if err != nil {
		return publishDoc{}, err
	}
	key, err := f.key(app)
	if err != nil {
		return publishDoc{}, err
	}
	layouts := make([]*ociimage.Layout, len(paths))
	for i, path := range paths {
		if layouts[i], err = ociimage.OpenLayout(path); err != nil {
			return publishDoc{}, err
		}
		defer layouts[i].Close()
	}
	registry, err := conn.registry(config, f.registryCA)
	if err != nil {
		return publishDoc{}, err
	}
	defer registry.Close()
	repository, err := f.where(ctx, config, layouts[0])
	if err != nil {
		return publishDoc{}, err
	}
	progress := app.NewProgress()
	published, err := publish.Publish(ctx, publish.Options{
		Layouts: layouts, Client: registry, Repository: repository, Key: key,
		Approve: func(p publish.Published) error { return f.approve(ctx, config, p) },
		Progress: func(name string, total int64) (func(int64), func(error)) {
			part := progress.Start(name, total)
			return part.Add, part.Done
		},
	})
	progress.Close()
	if err != nil {
		return publishDoc{}, loginHint(config, repository, err)
	}
	if f.noRegister {
		return publishDoc{Published: published}, nil
	}
	registered, err := f.register(ctx, config, published)
	return publishDoc{published, registered}, err
}

// check refuses what the platform would refuse, before anything is pushed.
func (f *publishFlags) check() error {
	switch nodeapi.Variety(f.variety) {
	case nodeapi.VarietySubscription, nodeapi.VarietyConfig, nodeapi.VarietyInstance:
	default:
		return fault.New(fault.Refuse, fault.Input, "give --variety subscription, config or instance", "there is no variety %.40q", f.variety)
	}
	if f.priority < 0 || f.priority > operatorapi.MaxPriority {
		return fault.New(fault.Refuse, fault.Input, fmt.Sprintf("give --priority 0 to %d", operatorapi.MaxPriority), "priority %d is out of range", f.priority)
	}
	if f.position < -1 || f.position > operatorapi.MaxCategoryPosition {
		return fault.New(fault.Refuse, fault.Input, fmt.Sprintf("give --category-position 0 to %d", operatorapi.MaxCategoryPosition),
			"category position %d is out of range", f.position)
	}
	return nil
}

// approve refuses to give the current version's name to other content: the push would move its
// tag before the platform said no. Whatever else there is to say, registering says.
func (f *publishFlags) approve(ctx context.Context, config operatorclient.Config, p publish.Published) error {
	if f.noRegister {
		return nil
	}
	client, err := operatorclient.NewClient(config)
	if err != nil {
		return err
	}
	defer client.Close()
	current, err := client.Module(ctx, p.Name)
	if fault.AreaOf(err) == fault.Input {
		return nil // the platform doesn't know the module yet
	}
	if err != nil || current.Version != p.Version {
		return err
	}
	for _, image := range p.Images {
		if !slices.ContainsFunc(current.Images, func(i operatorapi.Image) bool { return i.ManifestDigest == image.Digest }) {
			return fault.New(fault.Refuse, fault.Input, "raise the module's version: a version names one content for ever",
				"%s %s is registered with other content than image %s", p.Name, p.Version, image.Digest)
		}
	}
	return nil
}

// key reads the private key.
func (f *publishFlags) key(app *cli.App) (*signing.Key, error) {
	file, err := os.Open(f.keyFile)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "make one with powernode key generate, or name it with --key", "open the signing key: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, signing.KeyFileMax+1))
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	password, err := passwordSource(app, f.passwordFile).Read(false)
	if err != nil {
		return nil, err
	}
	return signing.OpenKey(text, password)
}

// where returns the repository, with its host.
func (f *publishFlags) where(ctx context.Context, config operatorclient.Config, layout *ociimage.Layout) (string, error) {
	path := f.repository
	if path == "" {
		name, err := publish.NameOf(ctx, layout)
		if err != nil {
			return "", err
		}
		path = "modules/" + name
	}
	own := config.RegistryHost()
	// As everywhere with image names, the first component is a host if it has a dot or a port.
	host, rest, ok := strings.Cut(path, "/")
	hasHost := ok && strings.ContainsAny(host, ".:")
	switch {
	case hasHost && sameHost(host, own):
		path, hasHost = rest, false
	case hasHost && f.noRegister:
		return path, nil
	}
	registry, err := platformsRegistry(ctx, config)
	switch {
	case err != nil:
		return "", err
	case !hasHost:
		return registry + "/" + path, nil
	case strings.HasPrefix(path, registry+"/"):
		return path, nil
	}
	return "", fault.New(fault.Refuse, fault.Input, "leave the host out, or push there with --no-register",
		"publish to %s: the platform takes modules from its own registry, %s, only", path, registry)
}

// platformsRegistry returns what stands before a repository's path: the host by which the platform is reached, or what it says of the
// other registry that its modules are in.
func platformsRegistry(ctx context.Context, config operatorclient.Config) (string, error) {
	client, err := operatorclient.NewClient(config)
	if err != nil {
		return "", err
	}
	defer client.Close()
	info, err := client.Info(ctx)
	if err != nil {
		return "", err
	}
	if public, err := url.Parse(info.PublicURL); err == nil && sameHost(public.Host, info.Registry) {
		return config.RegistryHost(), nil
	}
	return info.Registry, nil
}

// loginHint says how a person logs in to a registry that isn't the platform's own, where that is what went wrong.
func loginHint(config operatorclient.Config, repository string, err error) error {
	host, _, _ := strings.Cut(repository, "/")
	switch {
	case sameHost(host, config.RegistryHost()):
		return err
	case ociimage.IsUnauthorized(err):
		return fault.New(fault.Refuse, fault.Platform, "log in there as someone who may push, with docker login "+host+" or oras login "+host, "%w", err)
	case ociimage.IsUnknownAuthority(err):
		return fault.New(fault.Refuse, fault.Platform, "name the file with its authority with "+flagRegistryCA, "%w", err)
	}
	return err
}

// register tells the platform of what was pushed.
func (f *publishFlags) register(ctx context.Context, config operatorclient.Config, p publish.Published) (*operatorapi.Module, error) {
	client, err := operatorclient.NewClient(config)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	in := operatorapi.ModuleRegister{Repository: p.Repository, Digest: p.Digest, Variety: f.variety, Priority: f.priority}
	if f.position >= 0 {
		in.CategoryPosition = &f.position
	}
	m, err := client.RegisterModule(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("%s %s was pushed, but the platform didn't take it: %w", p.Name, p.Version, err)
	}
	return &m, nil
}

func (d publishDoc) table(w io.Writer) error {
	pairs := [][2]string{
		{"module", d.Name + " " + d.Version},
		{"image", d.Repository + ":" + d.Tag},
		{"digest", d.Digest},
		{"signed by", d.KeyID},
	}
	for _, i := range d.Images {
		pairs = append(pairs, [2]string{"seal " + i.Architecture, fmt.Sprintf("%s (%d layers, %s, %d entries)", i.Seal, i.Layers, cli.Bytes(uint64(i.Bytes)), i.Files)})
	}
	if len(d.BeyondSealingSpec) > 0 {
		pairs = append(pairs, [2]string{"remark", "other tools compute another seal, because of the xattrs " + strings.Join(d.BeyondSealingSpec, ", ")})
	}
	if d.Registered != nil {
		pairs = append(pairs, [2]string{"effective priority", fmt.Sprint(d.Registered.EffectivePriority)})
	}
	return cli.Pairs(w, pairs)
}
