package db

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

const (
	// pulsesAtOnce bounds the pulses of one transaction, so that others get their turn.
	pulsesAtOnce = 256
	// pulseTime bounds such a transaction: it is nobody's own request.
	pulseTime = 20 * time.Second
)

// beat is a pulse on its way to the disk.
type beat struct {
	nodeID string
	pulse  nodeapi.Pulse
	known  bool
	done   chan error // with room for one
}

// beats gathers pulses. A fleet's are most of what is written, each of them a row: together they cost one wait for the disk.
type beats struct {
	mu      sync.Mutex
	waiting []*beat
	// busy says that a goroutine writes, and goes on until none waits.
	busy bool
}

const updatePulse = `UPDATE reports SET received_at = ?, uptime_seconds = ?, load_average = ?, memory_free_kb = ?
	WHERE node_id = ? AND boot_id = ? AND state_hash = ? RETURNING TRUE`

func (d *DB) pulseArgs(nodeID string, p nodeapi.Pulse) []any {
	return []any{millis(d.now()), p.UptimeSeconds, p.LoadAverage, p.MemoryFreeKB, nodeID, p.BootID, p.StateHash}
}

// Pulse keeps a heartbeat of a node whose state is what it was, and reports whether it is: by its hash, in the same boot. Where it isn't,
// the node has been heard of all the same.
func (d *DB) Pulse(ctx context.Context, nodeID string, p nodeapi.Pulse) (known bool, err error) {
	if _, single := d.write.dialect.(sqliteDialect); !single {
		// One statement, which meets no other, and is its own transaction: the server gathers what is to be on the disk.
		err := found(d.write.QueryRow(ctx, updatePulse, d.pulseArgs(nodeID, p)...), &known)
		if err == nil && !known {
			err = found(d.write.QueryRow(ctx, updateHeard, millis(d.now()), nodeID), new(bool))
		}
		return known, d.explain(err)
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	b := &beat{nodeID: nodeID, pulse: p, done: make(chan error, 1)}
	d.beats.mu.Lock()
	d.beats.waiting = append(d.beats.waiting, b)
	if !d.beats.busy {
		d.beats.busy = true
		go d.keepBeats(context.WithoutCancel(ctx))
	}
	d.beats.mu.Unlock()
	select {
	case err := <-b.done:
		return b.known, err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

const updateHeard = "UPDATE reports SET received_at = ? WHERE node_id = ? RETURNING TRUE"

// found is Scan for a row that may not be there.
func found(row *sql.Row, into *bool) error {
	if err := row.Scan(into); !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return nil
}

// keepBeats writes what waits, and what comes meanwhile.
func (d *DB) keepBeats(ctx context.Context) {
	for {
		d.beats.mu.Lock()
		batch := d.beats.waiting
		if batch = batch[:min(len(batch), pulsesAtOnce)]; len(batch) == 0 {
			d.beats.waiting, d.beats.busy = nil, false
			d.beats.mu.Unlock()
			return
		}
		d.beats.waiting = d.beats.waiting[len(batch):]
		d.beats.mu.Unlock()
		err := d.writeBeats(ctx, batch)
		for _, b := range batch {
			b.done <- err
		}
	}
}

func (d *DB) writeBeats(ctx context.Context, batch []*beat) error {
	ctx, cancel := context.WithTimeout(ctx, pulseTime)
	defer cancel()
	return d.update(ctx, func(tx *txn) error {
		for _, b := range batch {
			b.known = false
			if err := found(tx.QueryRow(ctx, updatePulse, d.pulseArgs(b.nodeID, b.pulse)...), &b.known); err != nil {
				return err
			}
			if b.known {
				continue
			}
			if err := found(tx.QueryRow(ctx, updateHeard, millis(d.now()), b.nodeID), new(bool)); err != nil {
				return err
			}
		}
		return nil
	})
}
