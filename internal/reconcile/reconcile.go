package reconcile

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/url"
	"time"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/secret"
	"github.com/powernode/powernode-agent/internal/signature"
	"github.com/powernode/powernode-agent/internal/store"
)

// Config are the settings of a Reconciler. Store, Verifier and Level must be given.
type Config struct {
	Store    *store.Store
	Verifier *signature.Verifier
	// Credentials are the node's; nil where it has none that serve, which leaves nobody to ask for
	// a list, and only registries other than the platform's own.
	Credentials *enroll.Credentials
	// Arch is the GOARCH to fetch for.
	Arch string
	// Level is the integrity level that what is composed is to be mounted with.
	Level mount.Level
	// Deep has every byte of every object read when a module is proven, also where fs-verity is
	// enabled: after a boot that didn't come good, the reason may be a block that nobody has read yet.
	Deep bool
	// ReadOnly says that Store was opened for reading: what is proven stays as it is on the disk.
	ReadOnly bool
	// Desire makes of the platform's list what the node is to run; nil takes the list as it is. It doesn't count for
	// List, and its error is that of the whole list.
	Desire func(list *nodeapi.ModuleList) ([]Assigned, error)
	// Progress is told of a download of total bytes that begins, and returns what to tell of n more
	// bytes and of the end; nil shows nothing.
	Progress func(name string, total int64) (add func(n int64), done func(error))
	// Now is the clock, by which certificates are judged too; nil is time.Now. Prepare, if not nil, runs before each attempt
	// at a call to the platform: it makes sure that the clock can judge.
	Now     func() time.Time
	Prepare func(ctx context.Context) error

	// Patience says how long to ask. Notify, if not nil, is told of each call to the platform that
	// failed and is tried again.
	Patience Patience
	Notify   func(err error, wait time.Duration)

	// Platform and Source take the place of the platform of Credentials and of the registries; for
	// tests. nil for the real ones.
	Platform Platform
	Source   ociimage.Source
}

// Platform says what a node should run.
type Platform interface {
	Modules(ctx context.Context) (*nodeapi.ModuleList, error)
}

// Reconciler does one piece of work on a store: a boot, an update. It is not safe for concurrent
// use.
type Reconciler struct {
	config   Config
	client   *nodeclient.Client
	registry *ociimage.Client

	platform Platform
	source   ociimage.Source
	// fresh are the objects that this process hashed on their way into the store.
	fresh assemble.Fresh
	// tried are the modules that were fetched again because of damage: once is enough.
	tried  map[string]bool
	mended []Mended
}

// New returns a Reconciler. It sends nothing.
func New(c Config) (*Reconciler, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	r := &Reconciler{config: c, platform: c.Platform, source: c.Source, tried: make(map[string]bool)}
	var pinned *tls.Config
	var own string
	var proxy func(*http.Request) (*url.URL, error)
	if c.Credentials != nil {
		var err error
		settings := c.Patience.HTTP
		settings.Now = c.Now
		if r.client, err = nodeclient.New(nodeclient.Config{
			Credentials: c.Credentials, Retry: c.Patience.Retry, HTTP: settings, Notify: c.Notify, Prepare: c.Prepare,
		}); err != nil {
			return nil, err
		}
		if pinned, err = r.client.TLSConfig(); err != nil {
			r.Close()
			return nil, err
		}
		own = hostOf(c.Credentials.PlatformURL)
		if p := c.Credentials.Proxy(); p != nil {
			proxy = http.ProxyURL(p)
		}
		if r.platform == nil {
			r.platform = r.client
		}
	}
	if r.source == nil {
		r.registry = ociimage.NewClient(ociimage.Options{
			UserAgent: "powernode-agent", Retry: c.Patience.Registry, Stall: c.Patience.Stall,
			Access: r.access,
			// A network that lets the node reach its platform through a proxy only has no other way to registries.
			Proxy: proxy,
			// The platform's own registry is behind its CA, and knows the node by its certificate. Any
			// other gets the system's roots and hears nothing of the node's identity.
			TLSFor: func(host string) *tls.Config {
				if host == own {
					return pinned
				}
				return nil
			},
		})
		r.source = r.registry
	}
	return r, nil
}

// access asks the platform what opens a repository in a registry that isn't its own. It comes and stays in memory; the client sends it
// to that registry's host alone.
func (r *Reconciler) access(ctx context.Context, host, repository string) (ociimage.Access, error) {
	if r.client == nil || repository == "" || host == hostOf(r.config.Credentials.PlatformURL) {
		return ociimage.Access{}, nil
	}
	a, err := r.client.RegistryAccess(ctx, host+"/"+repository)
	return ociimage.Access{Username: a.Username, Password: secret.New(a.Password), Token: secret.New(a.Token)}, err
}

// Close drops the idle connections. The store stays open.
func (r *Reconciler) Close() {
	if r.client != nil {
		r.client.Close()
	}
	if r.registry != nil {
		r.registry.Close()
	}
}

// hostOf returns the host[:port] of a platform URL as enroll keeps it.
func hostOf(platform string) string {
	u, err := url.Parse(platform)
	if err != nil {
		return ""
	}
	return u.Host
}
