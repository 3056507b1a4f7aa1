// Package platform is the control plane in one process: its certificate authority, database,
// registry, catalog and HTTP interfaces, wired together over one data directory.
//
// It promises that the first start makes everything that is needed, that every later one finds
// it again, that two processes never share a data directory, and that it speaks HTTPS by TLS 1.3
// alone. It trusts its data directory, which holds the authority's key and the operator's token.
package platform

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/platform/api"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/catalog"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/platform/front"
	"github.com/powernode/powernode-agent/internal/platform/registry"
	"github.com/powernode/powernode-agent/internal/platform/replica"
	"github.com/powernode/powernode-agent/internal/secret"
)

// What lies in the data directory.
const (
	lockName     = "lock"
	databaseName = "platform.db"
	caName       = "ca"
	blobsName    = "registry"
	imagesName   = "modules"
)

// Options is what a Server is made of.
type Options struct {
	// Dir is the data directory. It is made if it isn't there.
	Dir string
	// Database, where it isn't nil, is the PostgreSQL server that holds the records; else they are in the data directory.
	Database *db.Postgres
	// SharedSecret is what all platforms over one Database know, if there are several: see package replica.
	SharedSecret secret.Text
	// Registry, where it isn't nil, is the URL of the registry that the modules are in, as external.ParseURL returns it; else the platform
	// has its own. RegistryCredentials names the file with its credentials; "" is none. RegistryTLS is how it is known; nil by the system's authorities.
	Registry            *url.URL
	RegistryCredentials string
	RegistryTLS         *tls.Config
	// RegistryDir is where the registry's bytes lie, which platforms over one Database have in common; "" is in the data directory.
	RegistryDir string
	// Listen is the address to listen on, host:port; port 0 takes a free one.
	Listen string
	// PublicURL is the URL by which nodes and operators reach the platform; nil means https at
	// the listening address.
	PublicURL *url.URL
	// Names are further host names and IP addresses for the server certificate.
	Names []string
	// RenewExpired is what becomes of nodes whose certificate expired while they were off.
	RenewExpired api.RenewPolicy
	// CertificateLife is how long a node's certificate lives; 0 is 90 days.
	CertificateLife time.Duration
	// HeartbeatInterval is how often nodes are to report; 0 is every 30 s. HeartbeatsAtOnce is how many heartbeats may be under way before nodes are
	// put off; 0 is enough for many thousands of nodes.
	HeartbeatInterval time.Duration
	HeartbeatsAtOnce  int
	// TrustedProxies are the addresses of proxies that end TLS before the platform, and CertificateHeader is where they pass a client's
	// certificate: see package front.
	TrustedProxies    []netip.Prefix
	CertificateHeader front.Header
	// ResetOperator replaces the operator's token; the one before is worth nothing afterwards.
	ResetOperator bool
	Version       string
	Logger        *slog.Logger
	// Now tells the time; nil means time.Now. Over Database it is put right by what the server's clock differs from this machine's.
	Now func() time.Time
	// Machine is the machine's clock, by which Now goes; nil means time.Now. Tests have others.
	Machine func() time.Time
}

// Server is an open platform that listens, and answers once Serve is called.
type Server struct {
	log  *slog.Logger
	url  *url.URL
	dir  *durable.Dir
	lock *durable.Lock
	db   *db.DB
	// ca is the certificate authority, and replica what keeps it in step with other platforms'; nil over SQLite.
	ca      *ca.CA
	replica *replica.Replica
	// credentials is held by who changes the operator's credential file.
	credentials sync.Mutex
	listener    net.Listener
	tls         *tls.Config
	http        *http.Server
	// closers are closed last to first.
	closers []func() error
}

// Open opens the data directory, makes what is missing in it, and begins to listen.
func Open(ctx context.Context, o Options) (*Server, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{log: o.Logger}
	if err := s.open(ctx, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) open(ctx context.Context, o Options) error {
	if err := s.openDir(o.Dir); err != nil {
		return fmt.Errorf("open the data directory: %w", err)
	}
	var err error
	if s.db, err = db.Open(ctx, db.Options{Path: o.Dir + "/" + databaseName, Postgres: o.Database, Now: o.Now, Machine: o.Machine, Logger: s.log}); err != nil {
		return err
	}
	s.closers = append(s.closers, s.db.Close)
	// All that this platform decides is by the time that the others decide by, too.
	o.Now = s.db.Now
	if o.Database != nil && o.Database.Unverified() {
		s.log.Warn("whoever is between this platform and the database can read and change everything", "database", o.Database.Name(), "hint", "sslmode=verify-full in --database")
	}
	authority, err := s.openAuthority(ctx, o)
	if err != nil {
		return err
	}
	if err := s.listen(ctx, o); err != nil {
		return err
	}
	certificate, err := authority.NewServerCertificate(serverNames(s.url.Hostname(), s.listener.Addr(), o.Names))
	if err != nil {
		return err
	}
	s.tls = tlsConfig(authority, certificate, o.Now)
	if err := s.ensureOperator(ctx, authority.Bundle(), o.ResetOperator); err != nil {
		return fmt.Errorf("make the operator's credentials: %w", err)
	}
	if err := s.wire(ctx, authority, o); err != nil {
		return err
	}
	s.follow(ctx)
	s.keepUp(ctx)
	return nil
}

// openDir opens the data directory for this process alone.
func (s *Server) openDir(path string) error {
	var err error
	if s.dir, err = durable.MakeDir(path, 0o700, nil); err != nil {
		if fault.HintOf(err) == "" {
			err = fault.New(fault.Refuse, fault.Input, "name another directory with --data", "%w", err)
		}
		return err
	}
	s.closers = append(s.closers, s.dir.Close)
	if s.lock, err = s.dir.TryLock(lockName, durable.Exclusive); err != nil {
		return err
	}
	s.closers = append(s.closers, s.lock.Unlock)
	info, err := s.dir.File().Stat()
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fault.New(fault.Refuse, fault.Input, "chmod 700 "+path, "%s: mode %04o lets others into the directory with the authority's key", path, info.Mode().Perm())
	}
	return s.dir.Sweep()
}

// sub opens a directory of the data directory, and makes it if need be.
func (s *Server) sub(name string) (*durable.Dir, error) {
	dir, err := s.dir.MakeSub(name, 0o700, name)
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, dir.Close)
	return dir, dir.Sweep()
}

// listen takes the listening address, and with it settles the public URL.
func (s *Server) listen(ctx context.Context, o Options) error {
	var config net.ListenConfig
	var err error
	if s.listener, err = config.Listen(ctx, "tcp", o.Listen); err != nil {
		return fault.New(fault.Refuse, fault.Input, "choose another address with --listen, or stop what listens there", "listen on %s: %w", o.Listen, err)
	}
	s.closers = append(s.closers, func() error {
		if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	if s.url = o.PublicURL; s.url == nil {
		s.url = &url.URL{Scheme: "https", Host: publicHost(s.listener.Addr())}
	}
	return nil
}

// wire puts the parts together.
func (s *Server) wire(ctx context.Context, authority *ca.CA, o Options) error {
	images, err := s.sub(imagesName)
	if err != nil {
		return err
	}
	var interfaces *api.API
	modules, err := s.openRegistry(o, func(r *http.Request) (*registry.Caller, error) { return interfaces.RegistryCaller(r) })
	if err != nil {
		return err
	}
	interfaces = api.New(api.Options{
		DB: s.db, CA: authority, PublicURL: s.url, Version: o.Version, Logger: s.log, Now: o.Now, RenewExpired: o.RenewExpired, CertificateLife: o.CertificateLife,
		Catalog:  catalog.New(catalog.Options{Dir: images, Registry: modules.source, Records: modules.records}),
		Registry: modules.name, RegistryAccess: modules.access,
		CAChanged:         s.caChanged,
		HeartbeatInterval: o.HeartbeatInterval, HeartbeatsAtOnce: o.HeartbeatsAtOnce,
	})
	if err := interfaces.EndRetired(ctx); err != nil {
		return fmt.Errorf("end the certificates of retired authorities: %w", err)
	}
	if err := interfaces.WarnAuthorities(ctx); err != nil {
		return fmt.Errorf("compare the authorities with the certificates on file: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", interfaces.Handler())
	mux.Handle(registry.Root, modules.handler)
	mux.HandleFunc("GET /claim/{code}", interfaces.Sparing(interfaces.ClaimPage))
	mux.HandleFunc("GET /healthz", interfaces.Sparing(s.health))
	s.http = newHTTPServer(front.New(front.Options{
		Proxies: o.TrustedProxies, Header: o.CertificateHeader, Authorities: authority.ClientPool, Logger: s.log, Now: o.Now,
	}, logging(s.log, mux)), s.log)
	s.http.RegisterOnShutdown(interfaces.Drain)
	return nil
}

// health answers whether the platform can do its work: 200, or 503 with the reason in the log.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	status := http.StatusOK
	if err := s.db.Ping(r.Context()); err != nil {
		s.log.Error("health check: the database can't be used", "error", err, "hint", fault.HintOf(err))
		status = http.StatusServiceUnavailable
	}
	body, _ := json.Marshal(map[string]bool{"healthy": status == http.StatusOK})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A caller that went away needs no answer.
	_, _ = w.Write(body)
}

// URL returns the platform's public URL.
func (s *Server) URL() *url.URL { return s.url }

// Addr returns the address that the platform listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close closes what Serve hasn't closed yet. It may be called more than once.
func (s *Server) Close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}
