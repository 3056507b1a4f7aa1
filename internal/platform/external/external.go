// Package external reads modules from an OCI registry that isn't the platform's own, and gives nodes what they need to pull from it.
//
// It promises that it only reads, by digest, and within bounds; that what it returns as a manifest has its digest; that no password of the
// platform's ever goes to a node, to another host than the registry and the token service that the registry names, or into a log; and that
// credentials are read anew, so that they can be changed without a restart. It trusts its configuration. It doesn't trust the registry:
// who reads a blob checks its digest.
package external

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/singleflight"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/platform/registry"
)

// Options is what a Registry is made of.
type Options struct {
	// URL is the registry's, as ParseURL returns it: what is behind the host is the beginning of every repository's path.
	URL *url.URL
	// CredentialsFile names the file with the credentials; "" is none.
	CredentialsFile string
	// TLS is how the registry is known; nil by the system's authorities.
	TLS *tls.Config
	Now func() time.Time
}

// Registry is safe for concurrent use.
type Registry struct {
	name   string
	file   string
	client *ociimage.Client
	now    func() time.Time

	flight singleflight.Group
	mu     sync.Mutex
	grants map[string]grant
}

const hintURL = "give it as https://host or https://host/prefix"

// ParseURL reads the URL of a registry. Plain http is for loopback addresses only.
func ParseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, hintURL, "the registry's URL can't be read")
	}
	prefix := strings.Trim(u.Path, "/")
	ip := net.ParseIP(u.Hostname())
	switch {
	case u.User != nil:
		return nil, fault.New(fault.Refuse, fault.Input, "put user and password into a file, and name that with --registry-credentials-file", "the registry's URL holds a user")
	case u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, fault.New(fault.Refuse, fault.Input, hintURL, "registry %.200q: want https, a host, and a path or none", s)
	case u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()):
		return nil, fault.New(fault.Refuse, fault.Input, "use https", "registry %.200q: plain http is for loopback addresses only", s)
	case prefix != "" && !registry.ValidRepository(prefix):
		return nil, fault.New(fault.Refuse, fault.Input, hintURL, "registry %.200q: its path can't begin a repository's name", s)
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host), Path: prefix}, nil
}

// New returns a Registry. It reads the credentials, to say at once what is wrong with them, and sends nothing.
func New(o Options) (*Registry, error) {
	g := &Registry{name: o.URL.Host, file: o.CredentialsFile, now: o.Now, grants: map[string]grant{}}
	if o.URL.Path != "" {
		g.name += "/" + o.URL.Path
	}
	if _, err := g.credentials(); err != nil {
		return nil, err
	}
	host := o.URL.Host
	g.client = ociimage.NewClient(ociimage.Options{
		UserAgent: "powernode-platform", Proxy: http.ProxyFromEnvironment, TLS: o.TLS, PlainHTTP: o.URL.Scheme == "http",
		Retry: ociimage.Retrying{Attempts: 3, Max: 2 * time.Second},
		Access: func(_ context.Context, asking, _ string) (ociimage.Access, error) {
			if asking != host {
				return ociimage.Access{}, nil
			}
			c, err := g.credentials()
			return c.Platform, err
		},
	})
	return g, nil
}

// Close closes idle connections.
func (g *Registry) Close() { g.client.Close() }

// Name is what stands before a repository's path in images' names: the host and the prefix.
func (g *Registry) Name() string { return g.name }

// Manifest returns a manifest or index by its digest. An error that wraps db.ErrNotFound says that the registry doesn't hold it.
func (g *Registry) Manifest(ctx context.Context, repository, reference string) (mediaType, sum string, data []byte, err error) {
	mediaType, data, err = g.client.Document(ctx, g.name+"/"+repository, digest.Digest(reference))
	return mediaType, reference, data, missing(err)
}

// OpenBlob opens a blob that a manifest says to have that size. What is missing, or has another size, shows when it is read.
func (g *Registry) OpenBlob(ctx context.Context, repository, sum string, size int64) (io.ReadCloser, error) {
	return g.client.Blob(ctx, g.name+"/"+repository, ocispec.Descriptor{Digest: digest.Digest(sum), Size: size})
}

func missing(err error) error {
	if ociimage.IsNotFound(err) {
		return fmt.Errorf("%w: %w", db.ErrNotFound, err)
	}
	return err
}

// Access returns what opens a repository to a node.
//
// A registry with a token service gives tokens that are for reading one repository, for minutes: that is what a node gets, and the platform's
// own credentials stay here. A registry that knows passwords only has no such thing. Then a node gets the user that the credentials file
// has for nodes, who should be able to read and nothing else; without one, nothing.
func (g *Registry) Access(ctx context.Context, repository string) (nodeapi.RegistryAccess, error) {
	none := nodeapi.RegistryAccess{}
	c, err := g.credentials()
	if err != nil {
		return none, err
	}
	as := c.Nodes
	if as.Username == "" {
		as = c.Platform
	}
	if as.Username == "" {
		return none, nil
	}
	found, err := g.grant(ctx, repository, as)
	switch {
	case err != nil:
		return none, err
	case found.how == ociimage.OpenByToken:
		return nodeapi.RegistryAccess{Token: found.token.Reveal()}, nil
	case found.how == ociimage.OpenToAll:
		return none, nil
	case c.Nodes.Username == "":
		return none, fault.New(fault.Refuse, fault.Platform, "add a user for nodes to the platform's registry credentials, or let everybody read there",
			"the registry %s knows passwords only, and the platform has none for nodes", g.name)
	}
	return nodeapi.RegistryAccess{Username: c.Nodes.Username, Password: c.Nodes.Password.Reveal()}, nil
}
