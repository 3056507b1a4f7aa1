package db

import (
	"context"
	"database/sql"
	"errors"
	"slices"
)

// Errors by which the renewal of a certificate that wasn't on file isn't approved with all others.
var (
	ErrUnfiledSeveral   = errors.New("several renewals of it wait, and only one machine can be it")
	ErrUnfiledSettled   = errors.New("another renewal of it is approved, or it has had another certificate since")
	ErrUnfiledAttention = errors.New("its identity calls for attention")
)

// unfiledAtOnce is how many nodes are decided in one transaction: nodes' own requests wait for it.
const unfiledAtOnce = 100

// UnfiledRenewal is a renewal, waiting or just approved, of a certificate that FileLost put on file.
type UnfiledRenewal struct {
	Renewal

	NodeName string
	// Left says why it isn't approved with the others: one of the errors above, or nil.
	Left error
}

// UnfiledRenewals returns the renewals of certificates that FileLost put on file which wait, by the node's name.
func (d *DB) UnfiledRenewals(ctx context.Context) ([]UnfiledRenewal, error) {
	var list []UnfiledRenewal
	err := d.view(ctx, func(tx *txn) error {
		var err error
		list, err = unfiledRenewals(ctx, tx, "")
		return err
	})
	return list, err
}

// ApproveUnfiled approves those of UnfiledRenewals that nothing speaks against, and returns all of them. What an error
// leaves undone a second call does.
func (d *DB) ApproveUnfiled(ctx context.Context) ([]UnfiledRenewal, error) {
	waiting, err := d.UnfiledRenewals(ctx)
	if err != nil {
		return nil, err
	}
	var nodes []string
	for _, u := range waiting {
		nodes = append(nodes, u.NodeID)
	}
	done := []UnfiledRenewal{}
	for some := range slices.Chunk(slices.Compact(nodes), unfiledAtOnce) {
		var decided []UnfiledRenewal
		err := d.update(ctx, func(tx *txn) error {
			for _, id := range some {
				// Anew, in the transaction that decides.
				list, err := unfiledRenewals(ctx, tx, id)
				if err != nil {
					return err
				}
				for i := range list {
					if list[i].Left != nil {
						continue
					}
					if err := d.decideRenewal(ctx, tx, &list[i].Renewal, RenewalApproved, ", with all whose certificate wasn't on file"); err != nil {
						return err
					}
				}
				decided = append(decided, list...)
			}
			return dropEvents(ctx, tx)
		})
		if err != nil {
			return done, err
		}
		done = append(done, decided...)
	}
	return done, nil
}

// unfiledRenewals are those of one node, or of all where nodeID is "".
func unfiledRenewals(ctx context.Context, tx *txn, nodeID string) ([]UnfiledRenewal, error) {
	of := "?1 = ''"
	if nodeID != "" {
		// By its index.
		of = "r.node_id = ?1"
	}
	rows, err := tx.Query(ctx, `SELECT r.id, r.node_id, n.name, c.serial, r.reason, r.state, r.asked_at, r.last_asked_at, r.asked_from, r.dmi_uuid, r.agent_version,
		(SELECT count(*) FROM renewals o WHERE o.node_id = r.node_id AND o.state = 'waiting') > 1,
		EXISTS (SELECT 1 FROM renewals o WHERE o.node_id = r.node_id AND o.state = 'approved')
			OR EXISTS (SELECT 1 FROM certificates x WHERE x.node_id = r.node_id AND x.rowid > c.rowid),
		EXISTS (SELECT 1 FROM attention a WHERE a.node_id = r.node_id)
		FROM renewals r JOIN certificates c ON c.id = r.certificate_id JOIN nodes n ON n.id = r.node_id
		WHERE r.state = 'waiting' AND c.unfiled AND `+of+` ORDER BY n.name, n.id, r.last_asked_at DESC, r.id`, nodeID)
	return collect(rows, err, func(rows *sql.Rows, u *UnfiledRenewal) error {
		var asked, last int64
		var several, settled, attention bool
		err := rows.Scan(&u.ID, &u.NodeID, &u.NodeName, &u.Serial, &u.Reason, &u.State, &asked, &last, &u.From, &u.DMIUUID, &u.AgentVersion,
			&several, &settled, &attention)
		u.AskedAt, u.LastAskedAt, u.Unfiled = moment(asked), moment(last), true
		switch {
		case several:
			u.Left = ErrUnfiledSeveral
		case settled:
			u.Left = ErrUnfiledSettled
		case attention:
			u.Left = ErrUnfiledAttention
		}
		return err
	})
}
