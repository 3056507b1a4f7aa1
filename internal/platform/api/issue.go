package api

import (
	"errors"
	"net/http"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// issue returns what makes a certificate for the request's key.
func (a *API) issue(request ca.Request) db.IssueFunc {
	return func(nodeID string) (db.Certificate, error) {
		leaf, err := a.ca.IssueNode(nodeID, request, a.certificateLife)
		if err != nil {
			return db.Certificate{}, err
		}
		return db.Certificate{
			Serial: leaf.Serial, Fingerprint: leaf.Fingerprint, PEM: string(leaf.PEM), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		}, nil
	}
}

// certificateAnswer is what a node gets with a certificate. The chain is of the authority that signed it:
// one that was issued before the authority changed is answered again as it is.
func (a *API) certificateAnswer(cert db.Certificate) nodeapi.EnrollResponse {
	return nodeapi.EnrollResponse{
		CertPEM: cert.PEM, CAChainPEM: string(a.ca.ChainOf(cert.PEM)), InstanceID: cert.NodeID, MTLSSubject: cert.NodeID,
		NotAfter: cert.NotAfter, CertificateID: cert.ID,
	}
}

// ended tells the holder of a certificate why it isn't good any more, or returns nil for another error.
func ended(err error) *problem {
	switch {
	case errors.Is(err, db.ErrRevoked):
		return refuse(http.StatusUnauthorized, nodeapi.CodeCertificateRevoked, "this certificate was revoked: enroll again with a new token")
	case errors.Is(err, db.ErrSuperseded):
		return refuse(http.StatusUnauthorized, nodeapi.CodeCertificateSuperseded,
			"this certificate's successor has been used: a backup was restored, or another machine has this identity; renew it, which an operator must approve, or enroll again with a new token")
	case errors.Is(err, db.ErrExpired):
		return refuse(http.StatusUnauthorized, nodeapi.CodeCertificateExpired, "this certificate is outside its validity: renew it, or enroll again with a new token")
	case errors.Is(err, db.ErrNodeInactive):
		return refuse(http.StatusUnauthorized, nodeapi.CodeNodeInactive, "this node is not active")
	}
	return nil
}

// notIssued turns the errors of a succession into answers.
func notIssued(w http.ResponseWriter, err error) error {
	switch {
	case errors.Is(err, db.ErrKeyUsed):
		return refuse(http.StatusConflict, nodeapi.CodeConflict, "csr_pem: the key has had a certificate already").withHint("make a new key")
	case errors.Is(err, db.ErrTooMany):
		return tooMany(w, 10*time.Minute)
	}
	if p := ended(err); p != nil {
		return p
	}
	return err
}
