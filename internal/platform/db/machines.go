package db

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// keptBootIDs is how many boot IDs of a node are kept.
const keptBootIDs = 16

// AttentionKind says what calls for an operator's attention.
type AttentionKind string

// The kinds.
const (
	AttentionBoot AttentionKind = "boot_id"
	AttentionDMI  AttentionKind = "dmi_uuid"
	AttentionVM   AttentionKind = "vm_generation_id"
)

// Sender is who sent a heartbeat: the node, by that certificate, from that address.
type Sender struct {
	NodeID        string
	CertificateID string
	From          string
}

// machine is what is known of the machine that a node is.
type machine struct {
	// boot is the last heartbeat's boot ID, earlier those before it.
	boot    string
	earlier []string
	// first is what was first said of the machine under the certificate.
	first nodeapi.Machine
}

// attention is one reason for an operator to look.
type attention struct {
	kind AttentionKind
	text string
}

// namesBoot reports whether a heartbeat's boot ID is one: agents say "unknown" where the kernel's can't be read, which is
// no evidence of another machine.
func namesBoot(id string) bool { return id != "" && id != "unknown" }

// suspect says why a heartbeat can't be of the one machine that is known, or nothing. A boot ID is
// random and ends with its boot: one that comes again after another means that two machines run, or that
// one went back to an earlier state of its memory.
func suspect(known machine, from string, hb nodeapi.Heartbeat) []attention {
	var list []attention
	if namesBoot(hb.BootID) && hb.BootID != known.boot && slices.Contains(known.earlier, hb.BootID) {
		list = append(list, attention{AttentionBoot, fmt.Sprintf(
			"two machines use this identity: boot %s was followed by boot %s and reports again, from %s", hb.BootID, known.boot, from)})
	}
	differ := func(first, now string) bool { return first != "" && now != "" && !strings.EqualFold(first, now) }
	if differ(known.first.DMIUUID, hb.Machine.DMIUUID) {
		list = append(list, attention{AttentionDMI, fmt.Sprintf(
			"another machine uses this identity: its DMI UUID was %s when the certificate was first used and is %s now, from %s",
			known.first.DMIUUID, hb.Machine.DMIUUID, from)})
	}
	if differ(known.first.VMGenerationID, hb.Machine.VMGenerationID) {
		list = append(list, attention{AttentionVM, fmt.Sprintf(
			"this virtual machine was cloned, or restored from a snapshot: its generation ID was %s when the certificate was first used and is %s now, from %s",
			known.first.VMGenerationID, hb.Machine.VMGenerationID, from)})
	}
	return list
}

// machineOf reads what is known of a node's machine; again says that the heartbeat's boot ID is among it. What
// an older version kept that is no boot ID doesn't count.
func machineOf(ctx context.Context, tx *txn, s Sender, bootID string) (m machine, again bool, err error) {
	rows, err := tx.Query(ctx, "SELECT boot_id FROM boot_ids WHERE node_id = ? ORDER BY id DESC", s.NodeID)
	ids, err := collect(rows, err, func(rows *sql.Rows, id *string) error { return rows.Scan(id) })
	if err != nil {
		return m, false, err
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return !namesBoot(id) })
	if len(ids) > 0 {
		m.boot, m.earlier = ids[0], ids[1:]
	}
	err = tx.QueryRow(ctx, "SELECT dmi_uuid, vm_generation_id FROM certificates WHERE id = ?", s.CertificateID).
		Scan(&m.first.DMIUUID, &m.first.VMGenerationID)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return m, slices.Contains(ids, bootID), err
}

// sight compares a heartbeat with what is known of the node's machine, records what doesn't fit, once for
// each kind, and remembers the heartbeat. It reports whether the boot is one that was never heard of.
func (d *DB) sight(ctx context.Context, tx *txn, s Sender, hb nodeapi.Heartbeat) (newBoot bool, err error) {
	known, again, err := machineOf(ctx, tx, s, hb.BootID)
	if err != nil {
		return false, err
	}
	now := millis(d.now())
	for _, a := range suspect(known, s.From, hb) {
		n, err := tx.Exec(ctx, "INSERT INTO attention (node_id, kind, at, text) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", s.NodeID, a.kind, now, a.text)
		if err == nil && n > 0 {
			err = d.nodeEvent(ctx, tx, EventShared, s.NodeID, a.text)
		}
		if err != nil {
			return false, err
		}
	}
	if namesBoot(hb.BootID) && hb.BootID != known.boot {
		for _, stmt := range []struct {
			query string
			args  []any
		}{
			// The row anew, as the newest.
			{"DELETE FROM boot_ids WHERE node_id = ? AND boot_id = ?", []any{s.NodeID, hb.BootID}},
			{"INSERT INTO boot_ids (node_id, boot_id, seen_at) VALUES (?, ?, ?)", []any{s.NodeID, hb.BootID, now}},
			{`DELETE FROM boot_ids WHERE node_id = ?1 AND id NOT IN (SELECT id FROM boot_ids WHERE node_id = ?1 ORDER BY id DESC LIMIT ?2)`, []any{s.NodeID, keptBootIDs}},
		} {
			if _, err := tx.Exec(ctx, stmt.query, stmt.args...); err != nil {
				return false, err
			}
		}
	}
	first := known.first
	first.DMIUUID, first.VMGenerationID = cmp.Or(first.DMIUUID, hb.Machine.DMIUUID), cmp.Or(first.VMGenerationID, hb.Machine.VMGenerationID)
	if first != known.first {
		if _, err := tx.Exec(ctx, "UPDATE certificates SET dmi_uuid = ?, vm_generation_id = ? WHERE id = ?", first.DMIUUID, first.VMGenerationID, s.CertificateID); err != nil {
			return false, err
		}
	}
	return namesBoot(hb.BootID) && !again, nil
}

// Attention returns why an operator should look at nodes: texts by node and kind.
func (d *DB) Attention(ctx context.Context, nodeID string) (map[string]map[AttentionKind]string, error) {
	type row struct {
		node, text string
		kind       AttentionKind
	}
	where, args := only("node_id", nodeID)
	rows, err := d.read.Query(ctx, "SELECT node_id, kind, text FROM attention WHERE "+where, args...)
	list, err := collect(rows, err, func(rows *sql.Rows, r *row) error { return rows.Scan(&r.node, &r.kind, &r.text) })
	out := map[string]map[AttentionKind]string{}
	for _, r := range list {
		if out[r.node] == nil {
			out[r.node] = map[AttentionKind]string{}
		}
		out[r.node][r.kind] = r.text
	}
	return out, d.explain(err)
}

// clearAttention drops what called for attention, takes the machine that reported last as the node's, and
// returns the texts.
func (d *DB) clearAttention(ctx context.Context, tx *txn, nodeID string) ([]string, error) {
	rows, err := tx.Query(ctx, "SELECT text FROM attention WHERE node_id = ? ORDER BY kind", nodeID)
	texts, err := collect(rows, err, func(rows *sql.Rows, text *string) error { return rows.Scan(text) })
	if err != nil || len(texts) == 0 {
		return nil, err
	}
	if err := forgetMachines(ctx, tx, nodeID); err != nil {
		return nil, err
	}
	return texts, d.event(ctx, tx, EventCleared, nodeID, "an operator cleared: "+strings.Join(texts, "; "))
}

// forgetMachines forgets what was said of a node's machine, but for its last boot.
func forgetMachines(ctx context.Context, tx *txn, nodeID string) error {
	for _, query := range []string{
		"DELETE FROM attention WHERE node_id = ?1",
		"DELETE FROM boot_ids WHERE node_id = ?1 AND id <> (SELECT max(id) FROM boot_ids WHERE node_id = ?1)",
		"UPDATE certificates SET dmi_uuid = '', vm_generation_id = '' WHERE node_id = ?1",
	} {
		if _, err := tx.Exec(ctx, query, nodeID); err != nil {
			return err
		}
	}
	return nil
}
