package platform

import (
	"context"
	"net/http"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/catalog"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/platform/external"
	"github.com/powernode/powernode-agent/internal/platform/registry"
)

// moduleSource is the registry that the modules are in, as the other parts see it.
type moduleSource struct {
	// name stands before a repository's path.
	name   string
	source catalog.Registry
	// records is where modules in it are registered.
	records catalog.Records
	// access is what opens it to nodes; nil where it knows them.
	access func(ctx context.Context, repository string) (nodeapi.RegistryAccess, error)
	// handler answers below registry.Root.
	handler http.Handler
}

// openRegistry opens the platform's own registry, or another.
func (s *Server) openRegistry(o Options, authenticate func(*http.Request) (*registry.Caller, error)) (moduleSource, error) {
	if o.Registry != nil {
		other, err := external.New(external.Options{URL: o.Registry, CredentialsFile: o.RegistryCredentials, TLS: o.RegistryTLS, Now: o.Now})
		if err != nil {
			return moduleSource{}, err
		}
		s.closers = append(s.closers, func() error { other.Close(); return nil })
		s.log.Info("modules are in another registry", "registry", other.Name())
		return moduleSource{name: other.Name(), source: other, records: s.db, access: other.Access, handler: registry.Elsewhere(other.Name())}, nil
	}
	blobs, err := s.openBlobs(o.RegistryDir)
	if err != nil {
		return moduleSource{}, err
	}
	own := registry.New(registry.Options{Dir: blobs, Index: s.db, Logger: s.log, Now: o.Now, Authenticate: authenticate})
	return moduleSource{name: s.url.Host, source: own, records: ownRecords{s.db, own}, handler: own}, nil
}

// ownRecords registers what the platform's own registry holds at that moment.
type ownRecords struct {
	*db.DB
	registry *registry.Registry
}

// Register is that of the registry.
func (r ownRecords) Register(ctx context.Context, m db.Module) (db.Module, error) {
	return r.registry.Register(ctx, r.DB, m)
}
