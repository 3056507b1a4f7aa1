package platform

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/api"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// credentialLimit bounds the credential file in bytes.
const credentialLimit = 256 << 10

// platformActor is who, in the audit log, does what the platform's own command line says. No operator's token has that name's form.
const platformActor = "(powernode-platform)"

// ensureOperator makes the operator's token on the first start, and writes it to the credential
// file before its hash goes into the database: a crash between the two makes another token at
// the next start, never one that nobody holds. Later it only keeps the URL and the CA in the file
// up to date; a file that was taken away, to where the operator works, isn't made again unless
// reset asks for another token.
func (s *Server) ensureOperator(ctx context.Context, caPEM []byte, reset bool) error {
	s.credentials.Lock()
	defer s.credentials.Unlock()
	want := operatorapi.Credentials{URL: s.url.String(), CAPEM: string(caPEM)}
	hash, err := s.db.OperatorHash(ctx)
	if reset || errors.Is(err, db.ErrNotFound) {
		return s.newOperator(ctx, want, !reset)
	}
	if err != nil {
		return err
	}
	data, err := s.dir.ReadFile(operatorapi.CredentialName, credentialLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var have operatorapi.Credentials
	if err := json.Unmarshal(data, &have); err != nil {
		s.log.Warn("the credential file isn't what the platform wrote; it stays as it is", "file", operatorapi.CredentialName, "error", err)
		return nil
	}
	if sum := sha256.Sum256([]byte(have.Token)); subtle.ConstantTimeCompare(sum[:], hash) != 1 {
		s.log.Warn("the credential file holds a token that isn't the operator's", "file", operatorapi.CredentialName)
		return nil
	}
	want.Token = have.Token
	if have == want {
		return nil
	}
	return s.dir.WriteJSON(operatorapi.CredentialName, want, 0o600, "operator-credentials")
}

// newOperator makes a token; the first one only where no other platform over the same database has made it meanwhile.
func (s *Server) newOperator(ctx context.Context, c operatorapi.Credentials, first bool) error {
	c.Token = api.NewToken()
	if err := s.dir.WriteJSON(operatorapi.CredentialName, c, 0o600, "operator-credentials"); err != nil {
		return err
	}
	if !first {
		ctx = db.WithIntent(ctx, &db.Intent{Entry: db.Audit{
			Actor: platformActor, Role: string(operatorapi.RoleAdmin), Action: "operator.reset", Target: operatorapi.FirstOperator, Result: db.AuditOK,
		}})
	}
	set, err := s.db.SetOperatorHash(ctx, sha256.Sum256([]byte(c.Token)), first)
	if err != nil {
		return fmt.Errorf("keep the operator token's hash: %w", err)
	}
	if !set {
		return s.dir.Remove(operatorapi.CredentialName, "operator-credentials")
	}
	s.log.Info("made the operator's credentials", "file", s.dir.Path()+"/"+operatorapi.CredentialName)
	return nil
}
