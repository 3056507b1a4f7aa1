package api

import (
	"errors"
	"net"
	"net/http"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// Bounds of what an enrollment may hold, in bytes.
const (
	maxEnroll = 64 << 10
	maxToken  = 512
)

// enroll exchanges a bootstrap token for a certificate. It is the one call without a caller.
func (a *API) enroll(w http.ResponseWriter, r *http.Request) (any, error) {
	in, err := read[nodeapi.EnrollRequest](w, r, maxEnroll)
	if err != nil {
		return nil, err
	}
	if in.BootstrapToken == "" {
		in.BootstrapToken = r.Header.Get("X-Bootstrap-Token")
	}
	switch {
	case in.BootstrapToken == "":
		return nil, unauthorized("bootstrap_token is needed")
	case in.CSRPEM == "":
		return nil, refuse(http.StatusBadRequest, nodeapi.CodeParameterMissing, "csr_pem is needed")
	case len(in.BootstrapToken) > maxToken:
		return nil, tokenRefused()
	}
	if err := checkArchitecture(in.Architecture, true); err != nil {
		return nil, err
	}
	request, err := ca.ParseRequest([]byte(in.CSRPEM))
	if err != nil {
		return nil, invalid("csr_pem: %v", err)
	}
	cert, err := a.db.Enroll(r.Context(), db.Enrollment{
		Token: in.BootstrapToken, KeyHash: request.KeyHash, NodeID: in.InstanceID, Architecture: in.Architecture, From: host(r),
		Issue: a.issue(request),
	})
	if err != nil {
		return nil, a.enrollRefused(r, err)
	}
	a.log.Info("enrolled", "node", cert.NodeID, "serial", cert.Serial, "from", host(r), "agent_version", clip(in.AgentVersion, maxVersion))
	return a.certificateAnswer(cert), nil
}

// enrollRefused gives every refusal the same answer. Only a node that holds a good token is told
// more: that it is of another architecture than the operator said.
func (a *API) enrollRefused(r *http.Request, err error) error {
	switch {
	case errors.Is(err, db.ErrArchitecture):
		return invalid("%v", err).withHint("boot the image for this machine's architecture, or create the node anew")
	case errors.Is(err, db.ErrTokenUnknown):
		a.log.Warn("enrollment with an unknown token", "from", host(r))
		if a.strangers.allow(db.EventEnrollRefused) {
			if err := a.db.RecordEvent(r.Context(), db.EventEnrollRefused, "", "enrollment from "+host(r)+" refused: the token is unknown"); err != nil {
				return err
			}
		}
		return tokenRefused()
	case errors.Is(err, db.ErrTokenExpired), errors.Is(err, db.ErrTokenUsed), errors.Is(err, db.ErrTokenMismatch),
		errors.Is(err, db.ErrTokenRevoked), errors.Is(err, db.ErrNodeInactive):
		a.log.Warn("enrollment refused", "from", host(r), "reason", err)
		return tokenRefused()
	default:
		return err
	}
}

func tokenRefused() *problem {
	return refuse(http.StatusUnprocessableEntity, nodeapi.CodeTokenRefused, "invalid or expired bootstrap token").
		withHint("get a new token from the operator")
}

// host returns the address that a request came from, without the port.
func host(r *http.Request) string {
	h, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return h
}

// clip cuts a text from outside to at most n bytes.
func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
