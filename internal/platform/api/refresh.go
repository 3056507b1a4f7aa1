package api

import (
	"net/http"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// refresh gives a node the successor of the certificate that it presents.
func (a *API) refresh(w http.ResponseWriter, r *http.Request, node db.Standing) (any, error) {
	in, err := read[nodeapi.RefreshRequest](w, r, maxEnroll)
	if err != nil {
		return nil, err
	}
	if in.CSRPEM == "" {
		return nil, refuse(http.StatusBadRequest, nodeapi.CodeParameterMissing, "csr_pem is needed")
	}
	request, err := ca.ParseRequest([]byte(in.CSRPEM))
	if err != nil {
		return nil, invalid("csr_pem: %v", err)
	}
	cert, err := a.db.Refresh(r.Context(), db.Refresh{
		Presented: node.CertificateID, KeyHash: request.KeyHash, From: host(r), Issue: a.issue(request),
	})
	if err != nil {
		return nil, notIssued(w, err)
	}
	a.log.Info("refreshed", "node", node.NodeID, "presented", node.Serial, "serial", cert.Serial, "from", host(r), "agent_version", clip(in.AgentVersion, maxVersion))
	return a.certificateAnswer(cert), nil
}
