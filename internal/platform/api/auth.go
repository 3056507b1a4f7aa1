package api

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// nodeHandler answers a node.
type nodeHandler func(w http.ResponseWriter, r *http.Request, node db.Standing) (any, error)

// asNode lets only nodes in good standing through, and few calls of each at once.
func (a *API) asNode(serve nodeHandler) handler {
	serve = a.few(serve)
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		node, err := a.node(r)
		if err != nil {
			return nil, err
		}
		return serve(w, r, node)
	}
}

func unauthorized(text string) *problem {
	return refuse(http.StatusUnauthorized, nodeapi.CodeUnauthorized, "%s", text)
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
	now := a.now()
	// A good certificate mustn't be said to have expired by a clock that is wrong: its node would ask for another.
	if err := a.db.TimeKnown(); err != nil {
		return db.Standing{}, err
	}
	if err := judge(node, cert, now); err != nil {
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
	if a.strangers.allow(db.EventAccessRefused) {
		text := "refused at " + r.URL.Path + " from " + host(r) + ", certificate " + node.Serial + ": " + p.text
		if err := a.db.RecordEvent(r.Context(), db.EventAccessRefused, node.NodeID, text); err != nil {
			return db.Standing{}, err
		}
	}
	return db.Standing{}, p
}
