// Package api answers the platform's HTTP interfaces: the node_api for nodes and the operator API.
//
// It promises that every call is judged by itself: a node's certificate must be on file, not
// revoked and not expired, and its node active, at this very request, whatever the connection
// was opened with; an operator's token must be on
// file, and its role enough for the call. A node sees its own
// modules and nothing of others. A stranger learns nothing but that it is one; the operator
// finds in the events why. It trusts the TLS layer for the proof that a peer holds its
// certificate's key, the database, and the clock.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/catalog"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// Catalog checks modules and computes what nodes should run.
type Catalog interface {
	Register(ctx context.Context, in catalog.Registration) (db.Module, error)
	ExpectedRoot(ctx context.Context, architecture string, modules []db.Module) (db.Root, error)
}

// Options is what an API is made of.
type Options struct {
	DB      *db.DB
	CA      *ca.CA
	Catalog Catalog
	// Registry is what stands before the path of a module's repository: "host:port" or "host/prefix".
	Registry string
	// RegistryAccess returns what opens a repository of that registry to a node; nil where the registry knows nodes by their certificates.
	RegistryAccess func(ctx context.Context, repository string) (nodeapi.RegistryAccess, error)
	// RenewExpired is what becomes of nodes whose certificate expired while they were off.
	RenewExpired RenewPolicy
	// CertificateLife is how long a node's certificate lives; 0 is ca.NodeLife.
	CertificateLife time.Duration
	// HeartbeatInterval is how often nodes are to report; 0 is the constant of that name. HeartbeatsAtOnce is how many may be under way before
	// nodes are put off; 0 is enough for many thousands.
	HeartbeatInterval time.Duration
	HeartbeatsAtOnce  int
	// PublicURL is the platform's URL as nodes and operators know it.
	PublicURL *url.URL
	Version   string
	Logger    *slog.Logger
	Now       func() time.Time
	// CAChanged is called after each change of the authorities; it may be nil.
	CAChanged func(ctx context.Context) error
}

// API holds the handlers.
type API struct {
	db      *db.DB
	ca      *ca.CA
	catalog Catalog
	// registry stands before every repository's path.
	registry       string
	registryAccess func(ctx context.Context, repository string) (nodeapi.RegistryAccess, error)
	publicURL      *url.URL
	version        string
	log            *slog.Logger
	now            func() time.Time
	// strangers bounds the events that callers without standing cause, by kind.
	strangers *limiters
	// rolling is held while the authorities change.
	rolling   sync.Mutex
	caChanged func(ctx context.Context) error
	// timeAsked bounds what each address may ask of the authority's key.
	timeAsked *addressLimiter
	// claimAsked bounds what each address may ask for machines without a token.
	claimAsked *addressLimiter
	// allClaimsTold and netClaimsTold bound the events of claims that find no room.
	allClaimsTold, netClaimsTold *limiter
	// renewAsked bounds what each address may ask for with a certificate that has ended.
	renewAsked  *addressLimiter
	renewPolicy RenewPolicy
	// refreshes bounds how many nodes are asked for a new certificate.
	refreshes *limiter
	// attempts bounds the entries of the audit log about what was refused, by operator.
	attempts *limiters
	// enrollAsked and plainAsked bound what each address may ask for by bootstrap tokens, and by nothing.
	enrollAsked, plainAsked *addressLimiter
	// wrongTokens bounds what each address may show of wrong operators' tokens.
	wrongTokens *wrongTokens
	// calls are those of nodes that are under way, polls those of them that wait for tasks.
	calls *underWay
	polls *polls
	// pace is that of heartbeats.
	pace *pace

	certificateLife time.Duration
}

// New returns an API.
func New(o Options) *API {
	return &API{
		db: o.DB, ca: o.CA, catalog: o.Catalog, publicURL: o.PublicURL, version: o.Version, log: o.Logger, now: o.Now,
		caChanged: o.CAChanged, registry: o.Registry, registryAccess: o.RegistryAccess,
		strangers:  newLimiters(strangerEvents, time.Minute, o.Now),
		timeAsked:  newAddressLimiter(timeBurst, timeInterval, o.Now),
		claimAsked: newAddressLimiter(claimBurst, claimInterval, o.Now), allClaimsTold: newLimiter(1, claimsFullEvery, o.Now), netClaimsTold: newLimiter(1, claimsFullEvery, o.Now),
		renewAsked: newAddressLimiter(renewBurst, renewInterval, o.Now), renewPolicy: o.RenewExpired,
		refreshes:       newLimiter(refreshesAtOnce, refreshSpan, o.Now),
		enrollAsked:     newAddressLimiter(enrollBurst, enrollInterval, o.Now),
		plainAsked:      newAddressLimiter(plainBurst, plainInterval, o.Now),
		attempts:        newLimiters(auditedAttempts, time.Minute, o.Now),
		wrongTokens:     newWrongTokens(o.Now),
		calls:           newUnderWay(maxCalls),
		polls:           newPolls(),
		pace:            newPace(o.HeartbeatInterval, o.HeartbeatsAtOnce, o.Now),
		certificateLife: o.CertificateLife,
	}
}

// Handler returns the handler of everything below /api/.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	allowed := map[string][]string{}
	route := func(pattern string, serve handler) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.Handle(pattern, a.answering(serve))
		allowed[path] = append(allowed[path], method)
	}
	for _, n := range nodeRoutes() {
		route(n.Method+" "+n.Path, n.serve(a))
	}
	for _, o := range operatorRoutes() {
		route(o.Method+" "+o.Path, a.asOperator(o))
	}
	mux.Handle("GET "+PathOpenAPI, a.Sparing(a.openAPI))
	allowed[PathOpenAPI] = []string{http.MethodGet}
	for path, methods := range allowed {
		mux.Handle(path, a.answering(func(w http.ResponseWriter, r *http.Request) (any, error) {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			return nil, refuse(http.StatusMethodNotAllowed, nodeapi.CodeNotFound, "%s is not served here", r.Method)
		}))
	}
	mux.Handle("/", a.answering(func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return nil, refuse(http.StatusNotFound, nodeapi.CodeNotFound, "nothing is served at %.200s", r.URL.Path)
	}))
	return mux
}
