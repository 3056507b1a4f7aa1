package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Node is one machine.
type Node struct {
	ID           string
	Name         string
	Architecture string // "amd64", "arm64", or "" while nobody said
	Active       bool
	CreatedAt    time.Time
	Modules      int     // the number of assignments
	Report       *Report // the last heartbeat; nil before the first
}

// Report is a heartbeat with the time of its arrival.
type Report struct {
	nodeapi.Heartbeat
	ReceivedAt time.Time
}

// CreateNode makes a node. ErrExists says that the name is taken.
func (d *DB) CreateNode(ctx context.Context, name, architecture string) (Node, error) {
	n := Node{ID: NewID(), Name: name, Architecture: architecture, Active: true, CreatedAt: moment(millis(d.now()))}
	return n, d.update(ctx, func(tx *txn) error {
		_, err := tx.Exec(ctx, "INSERT INTO nodes (id, name, architecture, created_at) VALUES (?, ?, ?, ?)",
			n.ID, n.Name, n.Architecture, millis(n.CreatedAt))
		return err
	})
}

const selectNodes = `SELECT n.id, n.name, n.architecture, n.state = 'active', n.created_at,
	(SELECT count(*) FROM assignments a WHERE a.node_id = n.id),
	r.received_at, r.boot_id, r.agent_version, r.architecture, r.uptime_seconds, r.module_digests, r.mount_state,
	r.load_average, r.memory_free_kb, r.root_digest, r.integrity_level, r.generation, r.remarks,
	r.ca_bundle_sha256
	FROM nodes n LEFT JOIN reports r ON r.node_id = n.id `

func scanNode(rows *sql.Rows, n *Node) error {
	var created int64
	var r struct {
		received, uptime, memory, generation                                     sql.NullInt64
		boot, version, arch, digests, mount, load, root, integrityLevel, remarks sql.NullString
		bundle                                                                   sql.NullString
	}
	if err := rows.Scan(&n.ID, &n.Name, &n.Architecture, &n.Active, &created, &n.Modules,
		&r.received, &r.boot, &r.version, &r.arch, &r.uptime, &r.digests, &r.mount,
		&r.load, &r.memory, &r.root, &r.integrityLevel, &r.generation, &r.remarks,
		&r.bundle); err != nil {
		return err
	}
	n.CreatedAt = moment(created)
	if !r.received.Valid {
		return nil
	}
	n.Report = &Report{ReceivedAt: moment(r.received.Int64), Heartbeat: nodeapi.Heartbeat{
		BootID: r.boot.String, AgentVersion: r.version.String, Architecture: r.arch.String, UptimeSeconds: r.uptime.Int64,
		MountState: nodeapi.MountState(r.mount.String), LoadAverage: r.load.String, MemoryFreeKB: r.memory.Int64,
		RootDigest: r.root.String, IntegrityLevel: r.integrityLevel.String, Generation: uint64(r.generation.Int64),
		CABundleSHA256: r.bundle.String,
	}}
	if err := json.Unmarshal([]byte(r.digests.String), &n.Report.ModuleDigests); err != nil {
		return fmt.Errorf("the module digests of node %s: %w", n.ID, err)
	}
	if err := json.Unmarshal([]byte(r.remarks.String), &n.Report.Remarks); err != nil {
		return fmt.Errorf("the remarks of node %s: %w", n.ID, err)
	}
	return nil
}

// Nodes returns every node, by name.
func (d *DB) Nodes(ctx context.Context) ([]Node, error) {
	rows, err := d.read.Query(ctx, selectNodes+"ORDER BY n.name")
	list, err := collect(rows, err, scanNode)
	return list, d.explain(err)
}

// Node returns the node of that ID or name, or ErrNotFound.
func (d *DB) Node(ctx context.Context, ref string) (Node, error) {
	rows, err := d.read.Query(ctx, selectNodes+"WHERE n.id = ?1 OR n.name = ?1 AND NOT EXISTS (SELECT 1 FROM nodes WHERE id = ?1)", ref)
	list, err := collect(rows, err, scanNode)
	switch {
	case err != nil:
		return Node{}, d.explain(err)
	case len(list) == 0:
		return Node{}, ErrNotFound
	}
	return list[0], nil
}

// NodeName returns the name of the node of that ID, or ErrNotFound.
func (d *DB) NodeName(ctx context.Context, id string) (string, error) {
	var name string
	err := d.read.QueryRow(ctx, "SELECT name FROM nodes WHERE id = ?", id).Scan(&name)
	return name, d.explain(err)
}

// Heartbeat keeps a node's heartbeat in place of the one before, and records the first one and
// each new boot as events, and what tells of two machines with one identity. It settles the node's
// architecture where nobody had said it.
func (d *DB) Heartbeat(ctx context.Context, sender Sender, hb nodeapi.Heartbeat) error {
	digests, err := json.Marshal(hb.ModuleDigests)
	if err != nil {
		return err
	}
	if hb.ModuleDigests == nil {
		digests = []byte("{}")
	}
	remarks, err := json.Marshal(hb.Remarks)
	if err != nil {
		return err
	}
	return d.updateOf(ctx, sender.NodeID, func(tx *txn) error {
		nodeID := sender.NodeID
		newBoot, err := d.sight(ctx, tx, sender, hb)
		if err != nil {
			return err
		}
		var one int
		err = tx.QueryRow(ctx, "SELECT 1 FROM reports WHERE node_id = ?", nodeID).Scan(&one)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			err = d.event(ctx, tx, EventRunning, nodeID, "first heartbeat, agent "+hb.AgentVersion)
		case err == nil && newBoot:
			err = d.nodeEvent(ctx, tx, EventBooted, nodeID, "booted, agent "+hb.AgentVersion)
		}
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "UPDATE nodes SET architecture = ? WHERE id = ? AND architecture = ''", hb.Architecture, nodeID); err != nil {
			return err
		}
		if err := d.removed(ctx, tx, nodeID, hb); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO reports (node_id, received_at, boot_id, agent_version, architecture,
			uptime_seconds, module_digests, mount_state, load_average, memory_free_kb, root_digest, integrity_level, generation, remarks,
			ca_bundle_sha256, state_hash, config_digest)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (node_id) DO UPDATE SET
			received_at = excluded.received_at, boot_id = excluded.boot_id, agent_version = excluded.agent_version,
			architecture = excluded.architecture, uptime_seconds = excluded.uptime_seconds, module_digests = excluded.module_digests,
			mount_state = excluded.mount_state, load_average = excluded.load_average, memory_free_kb = excluded.memory_free_kb,
			root_digest = excluded.root_digest, integrity_level = excluded.integrity_level, generation = excluded.generation,
			remarks = excluded.remarks, ca_bundle_sha256 = excluded.ca_bundle_sha256, state_hash = excluded.state_hash,
			config_digest = excluded.config_digest`,
			nodeID, millis(d.now()), hb.BootID, hb.AgentVersion, hb.Architecture, hb.UptimeSeconds, string(digests), string(hb.MountState),
			hb.LoadAverage, hb.MemoryFreeKB, hb.RootDigest, hb.IntegrityLevel, int64(hb.Generation), string(remarks), hb.CABundleSHA256, hb.StateHash,
			hb.ConfigDigest)
		return err
	})
}
