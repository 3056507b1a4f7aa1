package db

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// claimFresh is for how long a poll of a pending claim that says nothing new isn't written down. It is less than anybody asks of the time of a
// machine's last poll.
const claimFresh = 20 * time.Second

// knownClaim answers a poll that changes nothing, without a transaction: those exclude all others that write, on every platform, and anyone
// may poll. It reports whether it has; if not, or the answer is about to change, PollClaim decides.
func (d *DB) knownClaim(ctx context.Context, in ClaimPoll) (c Claim, answered bool, err error) {
	err = scanClaim(d.read.QueryRow(ctx, selectClaims+"WHERE c.mac = ? AND c.key_hash = ?", in.MAC, in.KeyHash).Scan, &c)
	now := d.now()
	switch {
	case errors.Is(err, sql.ErrNoRows):
		err = d.claimsFull(ctx, in, now)
		return Claim{}, err != nil, err
	case err != nil:
		return Claim{}, true, d.explain(err)
	}
	says := c.AgentVersion == in.AgentVersion && c.Architecture == in.Architecture && c.Hint == in.Hint && c.From == in.From &&
		(in.DMIUUID == "" || c.DMIUUID != "") && (in.Hostname == "" || c.Hostname != "")
	age := now.Sub(c.PolledAt)
	if !says || c.State != ClaimPending || age < 0 || age >= claimFresh || !now.Before(c.ExpiresAt) {
		return c, false, nil
	}
	// A machine that moves counts where it is.
	var there bool
	err = found(d.read.QueryRow(ctx, "SELECT network = ? AND site = ? FROM claims WHERE id = ?", in.Network, in.Site, c.ID), &there)
	return c, there || err != nil, d.explain(err)
}

// claimsFull returns ErrNetworkFull or ErrClaimsFull where there is no room for one more claim, and none gives way.
func (d *DB) claimsFull(ctx context.Context, in ClaimPoll, now time.Time) error {
	for _, bound := range in.limits() {
		var n, silent int
		err := d.read.QueryRow(ctx, "SELECT count(*), count(CASE WHEN state = 'pending' AND polled_at < ? THEN 1 END) FROM claims WHERE expires_at > ? AND "+bound.where,
			append([]any{millis(now.Add(-claimSilence)), millis(now)}, bound.args...)...).Scan(&n, &silent)
		switch {
		case err != nil:
			return d.explain(err)
		case n >= bound.most && silent == 0:
			return bound.full
		}
	}
	return nil
}
