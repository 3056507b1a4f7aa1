package api

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// Bounds of renewals.
const (
	maxProof      = 512                    // bytes
	renewBurst    = 120                    // calls at once from one address: nodes behind one router start together
	renewInterval = 200 * time.Millisecond // between calls after that
	// renewPollSeconds is when a node that waits for an approval asks again.
	renewPollSeconds = 60
	maxTimeText      = 40 // of RFC 3339 with nanoseconds: 30
)

// renewWaits is what the node shows while it waits. It names the command that ends the wait.
const renewWaits = "the renewal waits for an operator's approval: powernode node approve "

// renew gives a certificate for a new key to who holds the key of one that has ended. It needs no caller:
// the proof is in the request, and each request is worth a certificate for its own key only.
func (a *API) renew(w http.ResponseWriter, r *http.Request) (any, error) {
	if wait, ok := a.renewAsked.allow(r); !ok {
		return nil, tooMany(w, wait)
	}
	in, err := read[nodeapi.RenewRequest](w, r, maxEnroll)
	if err != nil {
		return nil, err
	}
	switch {
	case in.CSRPEM == "":
		return nil, refuse(http.StatusBadRequest, nodeapi.CodeParameterMissing, "csr_pem is needed")
	case in.CertificatePEM == "":
		return nil, refuse(http.StatusBadRequest, nodeapi.CodeParameterMissing, "certificate_pem is needed")
	case in.SignedAt == "":
		return nil, refuse(http.StatusBadRequest, nodeapi.CodeParameterMissing, "signed_at is needed")
	case len(in.Proof) == 0:
		return nil, refuse(http.StatusBadRequest, nodeapi.CodeParameterMissing, "proof is needed")
	}
	request, err := ca.ParseRequest([]byte(in.CSRPEM))
	if err != nil {
		return nil, invalid("csr_pem: %v", err)
	}
	cert, err := provenCertificate(in)
	if err != nil {
		a.log.Warn("renewal refused", "from", host(r), "reason", err)
		return nil, renewStranger()
	}
	if err := timely(in.SignedAt, a.now()); err != nil {
		a.log.Warn("renewal refused", "from", host(r), "serial", ca.Serial(cert), "reason", err)
		return nil, err
	}
	ask := db.RenewRequest{
		Presented: sha256.Sum256(cert.Raw), KeyHash: request.KeyHash, From: host(r),
		DMIUUID: printable(in.DMIUUID, maxWord), AgentVersion: printable(in.AgentVersion, maxVersion),
		Judge: func(c db.Certificate) db.RenewVerdict { return a.renewPolicy.Judge(c, a.now()) },
		Issue: a.issue(request),
	}
	out, err := a.db.Renew(r.Context(), ask)
	if errors.Is(err, db.ErrNotFound) {
		filed, lostErr := a.fileLost(r, cert)
		switch {
		case lostErr != nil:
			return nil, lostErr
		case filed:
			out, err = a.db.Renew(r.Context(), ask)
		}
	}
	switch {
	case err != nil:
		return nil, a.renewRefused(w, r, out.Presented, err)
	case out.Waiting:
		name, err := a.db.NodeName(r.Context(), out.Presented.NodeID)
		if err != nil {
			return nil, err
		}
		return nodeapi.RenewResponse{Status: nodeapi.RenewWaiting, PollAfterSeconds: renewPollSeconds, Message: renewWaits + name}, nil
	}
	a.log.Info("renewed", "node", out.Issued.NodeID, "presented", out.Presented.Serial, "serial", out.Issued.Serial, "from", host(r))
	answer := a.certificateAnswer(out.Issued)
	return nodeapi.RenewResponse{Status: nodeapi.RenewIssued, Certificate: &answer}, nil
}

// provenCertificate returns the certificate of a request if the proof is by its key. Whose it is, and
// whether it is anyone's, isn't known by that.
func provenCertificate(in nodeapi.RenewRequest) (*x509.Certificate, error) {
	if len(in.CertificatePEM) > ca.MaxRequest || len(in.Proof) > maxProof {
		return nil, errors.New("certificate_pem or proof is too long")
	}
	block, _ := pem.Decode([]byte(in.CertificatePEM))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("certificate_pem: want a PEM block CERTIFICATE")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	csr, _ := pem.Decode([]byte(in.CSRPEM))
	if csr == nil {
		return nil, errors.New("csr_pem: want a PEM block")
	}
	message := nodeapi.RenewMessage(in.SignedAt, csr.Bytes)
	proven := false
	switch key := cert.PublicKey.(type) {
	case ed25519.PublicKey:
		proven = ed25519.Verify(key, message, in.Proof)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		proven = ecdsa.VerifyASN1(key, sum[:], in.Proof)
	}
	if !proven {
		return nil, errors.New("the proof isn't by the certificate's key")
	}
	return cert, nil
}

// timely refuses a proof that wasn't made now: it may have been held back, and what it asks for be of the past.
func timely(signedAt string, now time.Time) error {
	if len(signedAt) > maxTimeText {
		return invalid("signed_at: want RFC 3339")
	}
	at, err := time.Parse(time.RFC3339, signedAt)
	if err != nil {
		return invalid("signed_at: want RFC 3339")
	}
	if now.Sub(at).Abs() <= nodeapi.ProofTime {
		return nil
	}
	return refuse(http.StatusUnprocessableEntity, nodeapi.CodeProofOutOfTime, "the proof was signed at %s by the node's clock, and it is %s here: at most %s may be between",
		at.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), nodeapi.ProofTime).withHint("set the node's clock")
}

// renewStranger is the one answer to who has no certificate of ours, or not its key.
func renewStranger() *problem {
	return unauthorized("this certificate can't be renewed: enroll with a new token")
}

// renewRefused answers the holder of a certificate that is on file.
func (a *API) renewRefused(w http.ResponseWriter, r *http.Request, presented db.Certificate, err error) error {
	var answer error
	switch {
	case errors.Is(err, db.ErrNotFound):
		a.log.Warn("renewal refused", "from", host(r), "reason", "the certificate isn't on file")
		return renewStranger()
	case errors.Is(err, db.ErrRenewalPolicy):
		answer = refuse(http.StatusForbidden, nodeapi.CodeRenewalRefused, "the platform renews no expired certificate").withHint("enroll again with a new token")
	case errors.Is(err, db.ErrRenewalDenied):
		answer = refuse(http.StatusForbidden, nodeapi.CodeRenewalRefused, "an operator denied the renewal").withHint("enroll again with a new token")
	default:
		answer = notIssued(w, err)
	}
	if p, ok := errors.AsType[*problem](answer); ok && a.strangers.allow(db.EventRenewalRefused) {
		text := "renewal of certificate " + presented.Serial + " from " + host(r) + " refused: " + p.text
		if err := a.db.RecordEvent(r.Context(), db.EventRenewalRefused, presented.NodeID, text); err != nil {
			return err
		}
	}
	return answer
}

// printable drops what isn't printable from a text from outside, and cuts it at n bytes.
func printable(s string, n int) string {
	return strings.ToValidUTF8(clip(strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return -1
	}, s), n), "")
}
