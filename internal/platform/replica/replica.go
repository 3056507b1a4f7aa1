// Package replica lets several platforms over one PostgreSQL be one: it keeps their certificate authorities the same.
//
// It promises that a platform with other authorities than the database's never starts, that a change which one platform makes is the
// others' within a second while they reach the database, that of two changes at once one is undone and said so, and that the
// database holds keys only encrypted by a secret that isn't in it. It trusts that secret, and its own directory.
package replica

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/secret"
)

// lookAgain is how often the database is asked although nothing was notified, and how soon what couldn't be told is told again.
const lookAgain = 30 * time.Second

// Records is where the platforms meet. *db.DB is one.
type Records interface {
	Authorities(ctx context.Context) (db.Authorities, error)
	ChangeAuthorities(ctx context.Context, change func(was db.Authorities) (db.Authorities, error)) error
	Watch(ctx context.Context, topic string) <-chan struct{}
}

// Options is what a Replica is made of.
type Options struct {
	Records Records
	// Dir holds this platform's copy of the authorities. It must stay open.
	Dir *durable.Dir
	// Secret is what all platforms know. Without it nothing is shared: the authorities are in Dir alone, and one platform at a
	// time may use the database.
	Secret secret.Text
	Now    func() time.Time
	Logger *slog.Logger
}

// Replica is one platform of several, or the only one.
type Replica struct {
	records Records
	log     *slog.Logger
	seal    *seal
	ca      *ca.CA

	// mu is held by who compares the authorities with the database.
	mu sync.Mutex
	// version is that of the database which the authorities are, but for an own change that it hasn't yet.
	version int64
	// untold says that there is such a change.
	untold bool
}

// Join opens the authorities that the database knows, or tells it of those in the directory, which are made if there are none. Platforms that
// start at once have the same ones.
func Join(ctx context.Context, o Options) (*Replica, error) {
	seal, err := newSeal(o.Secret)
	if err != nil {
		return nil, err
	}
	r := &Replica{records: o.Records, log: o.Logger, seal: seal}
	err = o.Records.ChangeAuthorities(ctx, func(was db.Authorities) (db.Authorities, error) {
		if err := r.take(o.Dir, was); err != nil {
			return was, err
		}
		if r.ca, err = ca.Open(o.Dir, o.Now); err != nil {
			return was, err
		}
		r.version = was.Version
		if was.Sealed != nil || was.Version > 0 && seal == nil {
			return was, nil
		}
		return r.next(was)
	})
	if err != nil {
		return nil, fmt.Errorf("agree with the database on the certificate authority: %w", err)
	}
	return r, nil
}

// take puts the authorities that the database has into dir.
func (r *Replica) take(dir *durable.Dir, was db.Authorities) error {
	origin, err := ca.OriginIn(dir)
	switch {
	case err != nil:
		return err
	case was.Version == 0:
		return nil
	case was.Sealed != nil && r.seal == nil:
		return fault.New(fault.Refuse, fault.Input, "name the file with their secret with --shared-secret-file",
			"several platforms share the certificate authority of this database")
	case origin != "" && origin != was.Origin:
		return fault.New(fault.Refuse, fault.Input, "name another database, or a data directory without the directory ca",
			"the data directory holds the certificate authority %s, and the database belongs to that of %s", origin, was.Origin)
	case was.Sealed == nil && origin == "":
		return fault.New(fault.Refuse, fault.Input,
			"start the platform that has it with --shared-secret-file first, and this one with the same; or restore the directory ca from a backup",
			"the database belongs to the certificate authority %s, which isn't in the data directory", was.Origin)
	case was.Sealed == nil:
		return nil
	}
	data, err := r.seal.open(was.Sealed, was.Origin, was.Version)
	if err != nil {
		return err
	}
	return ca.Install(dir, data)
}

// next is what the database is to hold after was.
func (r *Replica) next(was db.Authorities) (db.Authorities, error) {
	now := db.Authorities{Version: was.Version + 1, Origin: r.ca.Origin()}
	if r.seal != nil {
		data, err := r.ca.Export()
		if err != nil {
			return was, err
		}
		now.Sealed = r.seal.close(data, now.Origin, now.Version)
	}
	r.version = now.Version
	return now, nil
}

// CA is the authorities.
func (r *Replica) CA() *ca.CA { return r.ca }

// Tell gives the other platforms the change that was just made here. Where one of them made another change at the same moment, this
// one is undone, and that is the error. Where the database can't be reached it is told later.
func (r *Replica) Tell(ctx context.Context) error {
	if r.seal == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.untold = true
	return r.tell(ctx)
}

func (r *Replica) tell(ctx context.Context) error {
	late, before := false, r.version
	err := r.records.ChangeAuthorities(ctx, func(was db.Authorities) (db.Authorities, error) {
		r.version = before
		if late = was.Version != before; late {
			return was, nil
		}
		return r.next(was)
	})
	switch {
	case err != nil:
		r.version = before
		return fmt.Errorf("tell the other platforms of the certificate authority: %w", err)
	case late:
		if _, err := r.look(ctx); err != nil {
			return err
		}
		return fault.New(fault.Retry, fault.General, "see powernode ca list, and say it again if it is still meant",
			"another platform changed the certificate authority at the same moment; this change is undone")
	}
	r.untold = false
	return nil
}

// look takes over what another platform has changed, and reports whether that was anything.
func (r *Replica) look(ctx context.Context) (bool, error) {
	now, err := r.records.Authorities(ctx)
	if err != nil || now.Version == r.version {
		return false, err
	}
	if now.Version < r.version {
		return false, fault.New(fault.Broken, fault.General, "restart the platforms, one after the other",
			"the database has version %d of the certificate authority, after version %d: it was restored from a backup", now.Version, r.version)
	}
	data, err := r.seal.open(now.Sealed, now.Origin, now.Version)
	if err != nil {
		return false, err
	}
	changed, err := r.ca.Import(data)
	if err != nil {
		return false, fmt.Errorf("take over another platform's certificate authority: %w", err)
	}
	r.version, r.untold = now.Version, false
	return changed, nil
}

// Follow takes over what other platforms change until ctx ends, and calls changed after each time.
func (r *Replica) Follow(ctx context.Context, changed func(ctx context.Context) error) {
	if r.seal == nil {
		return
	}
	told := r.records.Watch(ctx, db.AuthoritiesTopic)
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		if err := r.step(ctx, changed); err != nil && ctx.Err() == nil {
			r.log.Error("the certificate authority isn't in step with the other platforms'", "error", err, "hint", fault.HintOf(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-told:
		case <-again.C:
		}
	}
}

// step is one look, or one more attempt to tell.
func (r *Replica) step(ctx context.Context, changed func(ctx context.Context) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.untold {
		return r.tell(ctx)
	}
	did, err := r.look(ctx)
	if err != nil || !did {
		return err
	}
	r.log.Info("another platform changed the certificate authority", "bundle_sha256", r.ca.BundleSHA256())
	return changed(ctx)
}
