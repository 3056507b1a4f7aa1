package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/platform/registry"
)

// nodeHandler answers a node.
type nodeHandler func(w http.ResponseWriter, r *http.Request, node db.Standing) (any, error)

// asNode lets only nodes in good standing through.
func (a *API) asNode(serve nodeHandler) handler {
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		node, err := a.node(r)
		if err != nil {
			return nil, err
		}
		return serve(w, r, node)
	}
}

// asOperator lets only the operator through.
func (a *API) asOperator(serve handler) handler {
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			return nil, unauthorized("the operator's token is needed, as bearer token")
		}
		is, err := a.isOperator(r.Context(), token)
		switch {
		case err != nil:
			return nil, err
		case !is:
			return nil, unauthorized("the operator's token is another")
		}
		data, err := serve(w, r)
		// After the call, which may have been the one that changed it.
		w.Header().Set(operatorapi.HeaderCABundle, a.ca.BundleSHA256())
		return data, err
	}
}

func unauthorized(text string) *problem {
	return refuse(http.StatusUnauthorized, nodeapi.CodeUnauthorized, "%s", text)
}

// isOperator compares hashes, so that neither time nor memory tells of the token. The hash is
// read anew each time: a token that was replaced stops working at once.
func (a *API) isOperator(ctx context.Context, token string) (bool, error) {
	want, err := a.db.OperatorHash(ctx)
	if err != nil {
		return false, err
	}
	got := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(got[:], want) == 1, nil
}

// node finds the node whose certificate the peer presented, and refuses unless that certificate
// itself is on file and good, now.
func (a *API) node(r *http.Request) (db.Standing, error) {
	// VerifiedChains, unlike PeerCertificates, is empty unless the TLS layer has checked the
	// certificate against the platform's CA.
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return db.Standing{}, unauthorized("a node's certificate is needed: enroll first")
	}
	cert := r.TLS.VerifiedChains[0][0]
	node, err := a.db.Standing(r.Context(), sha256.Sum256(cert.Raw))
	if errors.Is(err, db.ErrNotFound) {
		filed, lostErr := a.fileLost(r, cert)
		switch {
		case lostErr != nil:
			return db.Standing{}, lostErr
		case filed:
			node, err = a.db.Standing(r.Context(), sha256.Sum256(cert.Raw))
		}
	}
	if errors.Is(err, db.ErrNotFound) {
		a.log.Warn("a certificate of our CA that isn't on file", "serial", ca.Serial(cert), "subject", cert.Subject.String(), "from", r.RemoteAddr)
		return db.Standing{}, unauthorized("this certificate isn't on file: enroll again")
	}
	if err != nil {
		return db.Standing{}, err
	}
	if err := judge(node, cert, a.now()); err != nil {
		return a.barred(r, node, err)
	}
	if node.Used {
		return node, nil
	}
	if err := a.db.FirstUse(r.Context(), node.CertificateID, host(r)); err != nil {
		return a.barred(r, node, err)
	}
	return node, nil
}

// fileLost puts a node's certificate on file that the database has lost, see db.FileLost.
func (a *API) fileLost(r *http.Request, cert *x509.Certificate) (bool, error) {
	if !a.ca.Vouches(cert) {
		return false, nil
	}
	spki, err := x509.MarshalPKIXPublicKey(cert.PublicKey)
	if err != nil {
		return false, err
	}
	return a.db.FileLost(r.Context(), db.Certificate{
		NodeID: cert.Subject.CommonName, Serial: ca.Serial(cert), Fingerprint: sha256.Sum256(cert.Raw), KeyHash: sha256.Sum256(spki),
		PEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
	}, host(r))
}

// judge says why a certificate isn't good now, by what is on file and by what is in it.
func judge(node db.Standing, cert *x509.Certificate, now time.Time) error {
	switch {
	case node.Revoked:
		return db.ErrRevoked
	case node.Superseded:
		return db.ErrSuperseded
	case !now.Before(node.NotAfter) || now.After(cert.NotAfter) || now.Before(cert.NotBefore):
		return db.ErrExpired
	case !node.Active:
		return db.ErrNodeInactive
	}
	return nil
}

// barred refuses a node that is known, and records it.
func (a *API) barred(r *http.Request, node db.Standing, err error) (db.Standing, error) {
	p := ended(err)
	if p == nil {
		return db.Standing{}, err
	}
	if a.strangers.allow() {
		text := "refused at " + r.URL.Path + " from " + host(r) + ", certificate " + node.Serial + ": " + p.text
		if err := a.db.RecordEvent(r.Context(), db.EventAccessRefused, node.NodeID, text); err != nil {
			return db.Standing{}, err
		}
	}
	return db.Standing{}, p
}

// RegistryCaller says who makes a request to the registry: the operator by HTTP basic
// authentication or bearer token, a node by its certificate, or nobody (nil).
func (a *API) RegistryCaller(r *http.Request) (*registry.Caller, error) {
	if header := r.Header.Get("Authorization"); header != "" {
		token, bearer := strings.CutPrefix(header, "Bearer ")
		if !bearer {
			user, password, ok := r.BasicAuth()
			if !ok || user != operatorapi.RegistryUser {
				return nil, nil
			}
			token = password
		}
		is, err := a.isOperator(r.Context(), token)
		if err != nil || !is {
			return nil, err
		}
		return &registry.Caller{Operator: true}, nil
	}
	node, err := a.node(r)
	if p, ok := errors.AsType[*problem](err); ok && p.status == http.StatusUnauthorized {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &registry.Caller{MayPull: func(ctx context.Context, repository string) (bool, error) {
		return a.db.AssignedRepository(ctx, node.NodeID, repository)
	}}, nil
}
