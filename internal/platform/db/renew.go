package db

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Errors by which a renewal is refused.
var (
	ErrRenewalPolicy = errors.New("the platform's policy renews no certificate that has ended like this one")
	ErrRenewalDenied = errors.New("an operator denied the renewal")
)

// keptRenewals is how many renewals of one node are kept for an operator to decide; the one that asked
// least lately gives way to a new one.
const keptRenewals = 8

// RenewVerdict is what the platform's policy says of a certificate that has ended.
type RenewVerdict int

// The verdicts.
const (
	RenewRefuse RenewVerdict = iota // never
	RenewAsk                        // if an operator approves
	RenewIssue                      // at once
)

// RenewRequest is a request for a certificate by the key of another, after the proof was checked.
type RenewRequest struct {
	// Presented is the fingerprint of that other certificate.
	Presented [32]byte
	// KeyHash tells the new certificate's public key from others.
	KeyHash [32]byte
	// From is the network address that the request came from; DMIUUID and AgentVersion are what the
	// node says of itself.
	From, DMIUUID, AgentVersion string
	// Judge is asked about a certificate that expired, or was superseded.
	Judge func(c Certificate) RenewVerdict
	Issue IssueFunc
}

// Renewal is a renewal that an operator is to decide, or has decided.
type Renewal struct {
	ID     string
	NodeID string
	// Serial is that of the certificate that has ended, Reason "expired" or "superseded".
	Serial string
	Reason string
	// Unfiled says that FileLost put that certificate on file.
	Unfiled      bool
	State        RenewalState
	AskedAt      time.Time
	LastAskedAt  time.Time
	From         string
	DMIUUID      string
	AgentVersion string
}

// RenewalState is where a renewal stands.
type RenewalState string

// The states.
const (
	RenewalWaiting  RenewalState = "waiting"
	RenewalApproved RenewalState = "approved"
	RenewalDenied   RenewalState = "denied"
)

// Renewed is what came of a RenewRequest.
type Renewed struct {
	// Presented is the certificate that was presented, also beside an error, but for ErrNotFound.
	Presented Certificate
	// Issued is the certificate for the key, unless Waiting says that an operator is to decide.
	Issued  Certificate
	Waiting bool
}

// Renew gives the key a certificate, or keeps the request for an operator. A certificate that is good
// still is refreshed. The same key again gets the same certificate. It ends in ErrNotFound, ErrNodeInactive, ErrRevoked, ErrRenewalPolicy, ErrRenewalDenied, ErrKeyUsed or ErrTooMany.
func (d *DB) Renew(ctx context.Context, in RenewRequest) (Renewed, error) {
	nodeID, err := d.nodeOf(ctx, "SELECT node_id FROM certificates WHERE fingerprint = ?", in.Presented[:])
	if err != nil {
		return Renewed{}, err
	}
	var out Renewed
	err = d.updateOf(ctx, nodeID, func(tx *txn) error {
		out = Renewed{}
		presented, err := activeCertificate(ctx, tx, "fingerprint", in.Presented[:])
		out.Presented = presented
		if err != nil {
			return err
		}
		next := succession{presented, OriginRenew, in.KeyHash, in.From, in.Issue}
		ended := presented.Ended(d.now())
		if errors.Is(ended, ErrRevoked) {
			return ended
		}
		if out.Issued, err = d.ofKey(ctx, tx, presented.NodeID, in.KeyHash); err != nil || out.Issued.ID != "" {
			return err
		}
		if ended != nil {
			verdict, err := d.verdict(ctx, tx, presented, in)
			if err != nil {
				return err
			}
			if verdict == RenewAsk {
				out.Waiting = true
				return d.keepRenewal(ctx, tx, presented, in, ended)
			}
		}
		if out.Issued, err = d.succeed(ctx, tx, next); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "DELETE FROM renewals WHERE certificate_id = ? AND key_hash = ?", presented.ID, in.KeyHash[:])
		return err
	})
	return out, err
}

// verdict puts together what an operator said of this renewal and what the policy says.
func (d *DB) verdict(ctx context.Context, tx *txn, presented Certificate, in RenewRequest) (RenewVerdict, error) {
	// A denial is for the certificate: who holds its key can make others at will. An approval is for the
	// one key.
	var approved, denied bool
	err := tx.QueryRow(ctx, `SELECT count(*) FILTER (WHERE state = 'approved' AND key_hash = ?2) > 0, count(*) FILTER (WHERE state = 'denied') > 0
		FROM renewals WHERE certificate_id = ?1`, presented.ID, in.KeyHash[:]).Scan(&approved, &denied)
	switch {
	case err != nil:
		return RenewRefuse, err
	case approved:
		return RenewIssue, nil
	case denied:
		return RenewRefuse, ErrRenewalDenied
	}
	verdict := in.Judge(presented)
	if verdict == RenewRefuse {
		return verdict, ErrRenewalPolicy
	}
	return verdict, nil
}

// keepRenewal keeps what an operator is to decide. Asking again keeps its place.
func (d *DB) keepRenewal(ctx context.Context, tx *txn, c Certificate, in RenewRequest, ended error) error {
	now := millis(d.now())
	n, err := tx.Exec(ctx, "UPDATE renewals SET last_asked_at = ?, asked_from = ? WHERE certificate_id = ? AND key_hash = ?",
		now, in.From, c.ID, in.KeyHash[:])
	if err != nil || n > 0 {
		return err
	}
	reason := "expired"
	if errors.Is(ended, ErrSuperseded) {
		reason = "superseded"
	}
	// Those that are denied stay: without them, asking often would undo a denial.
	_, err = tx.Exec(ctx, `DELETE FROM renewals WHERE node_id = ?1 AND state <> 'denied' AND id NOT IN
		(SELECT id FROM renewals WHERE node_id = ?1 AND state <> 'denied' ORDER BY state = 'approved' DESC, last_asked_at DESC LIMIT ?2)`,
		c.NodeID, keptRenewals-1)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO renewals (id, node_id, certificate_id, key_hash, reason, asked_at, last_asked_at, asked_from, dmi_uuid, agent_version)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, NewID(), c.NodeID, c.ID, in.KeyHash[:], reason, now, now, in.From, in.DMIUUID, in.AgentVersion)
	if err != nil {
		return err
	}
	return d.nodeEvent(ctx, tx, EventRenewalWaiting, c.NodeID,
		"a renewal waits for approval, asked from "+in.From+": certificate "+c.Serial+" is "+reason)
}

// Renewals returns what waits for an operator, and what one has decided and is of use still: of one node,
// or of all where nodeID is "". The one that asked last is first.
func (d *DB) Renewals(ctx context.Context, nodeID string) ([]Renewal, error) {
	var list []Renewal
	err := d.view(ctx, func(tx *txn) error {
		var err error
		list, err = renewals(ctx, tx, nodeID)
		return err
	})
	return list, err
}

func renewals(ctx context.Context, tx *txn, nodeID string) ([]Renewal, error) {
	where, args := only("r.node_id", nodeID)
	rows, err := tx.Query(ctx, `SELECT r.id, r.node_id, c.serial, r.reason, r.state, r.asked_at, r.last_asked_at, r.asked_from, r.dmi_uuid, r.agent_version, c.unfiled
		FROM renewals r JOIN certificates c ON c.id = r.certificate_id WHERE `+where+" ORDER BY r.last_asked_at DESC, r.id", args...)
	return collect(rows, err, func(rows *sql.Rows, r *Renewal) error {
		var asked, last int64
		err := rows.Scan(&r.ID, &r.NodeID, &r.Serial, &r.Reason, &r.State, &asked, &last, &r.From, &r.DMIUUID, &r.AgentVersion, &r.Unfiled)
		r.AskedAt, r.LastAskedAt = moment(asked), moment(last)
		return err
	})
}
