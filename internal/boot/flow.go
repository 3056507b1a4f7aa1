package boot

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/identity/places"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/version"
)

// identify opens what is local: trust policy, store, abilities of kernel and disk, and the node's
// credentials or, where it has none that serve, its identity.
func (b *boot) identify(ctx context.Context) (string, error) {
	err := checkPersist(b.persistDir)
	if err != nil {
		return "", err
	}
	if _, err := b.loadTrust(); err != nil {
		return "", err
	}
	if err := b.openStore(); err != nil {
		return "", err
	}
	b.setClock()
	b.openClock()
	abilities, err := mount.Probe(b.store.ObjectsPath())
	if err != nil {
		return "", err
	}
	if b.persist.ReadOnly {
		// Nothing can be tried out there; what is there tells the same.
		abilities.FSVerity = mount.Ability{OK: true}
		if err := b.store.Verity(); err != nil {
			abilities.FSVerity = mount.Ability{Reason: err.Error()}
		}
	}
	if b.level, err = mount.Decide(abilities, b.required()); err != nil {
		return "", err
	}
	b.plan = plan{unfit: make(map[uint64]string)}
	if err := b.survey(); err != nil {
		b.remark(err.Error(), fault.HintOf(err))
	}
	b.listen()
	b.credentials, b.discovered, b.unidentified = nil, identity.Identity{}, nil
	state, err := enroll.Inspect(PKIDir(b.store.Path()), enroll.Wish{}, b.now())
	if err != nil {
		return "", err
	}
	if state.Credentials != nil {
		b.facts.InstanceID = state.Credentials.InstanceID
	}
	if state.Situation.Usable() {
		return fmt.Sprintf("node %s, enrolled at %s", state.Credentials.InstanceID, state.Credentials.PlatformURL), nil
	}
	b.discovered, b.unidentified = b.resolve(ctx)
	b.claims.wanted = b.claimable(state.Situation)
	switch {
	case b.unidentified == nil:
		return fmt.Sprintf("node %s of %s (from %s)", orUnnamed(b.discovered.InstanceID), b.discovered.PlatformURL, b.discovered.From.PlatformURL), nil
	case state.Credentials != nil && enroll.Decide(state.Situation, enroll.Means{})[0] != enroll.Refuse:
		return fmt.Sprintf("node %s of %s, credentials %s", state.Credentials.InstanceID, state.Credentials.PlatformURL, state.Situation), nil
	case b.claims.wanted:
		return fmt.Sprintf("a machine without a token, to be claimed at %s", b.discovered.PlatformURL), nil
	case len(b.candidates()) == 0:
		return "", b.unidentified
	}
	// A node that has run before needs no platform to run again.
	return fmt.Sprintf("credentials %s, and nothing to enroll with; there is generation %d", state.Situation, b.candidates()[0].Generation), nil
}

// places returns where the sources of identity look, and which count.
func (b *boot) places() places.Places {
	where := b.config.Places
	if where.Only == nil {
		where.Only = b.settings.Identity
	}
	return where
}

// resolve asks the sources who the node is.
func (b *boot) resolve(ctx context.Context) (identity.Identity, error) {
	i, _, err := identity.Resolver{Sources: b.places().Sources(), BeforeRemote: b.needNetwork, Refused: b.leftOut}.Resolve(ctx)
	return i, err
}

// checkPersist refuses to make the directory that everything depends on: where it is missing, the
// disk that holds it isn't mounted, and a token would be used up for credentials kept in memory.
func checkPersist(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: path, Err: syscall.ENOTDIR}
	}
	if err != nil {
		return fault.New(fault.Refuse, fault.Mount, "mount the disk that outlives the boot there, or name another directory with --persist",
			"use the persist directory: %w", err)
	}
	return nil
}

func orUnnamed(id string) string {
	if id == "" {
		return "named by its token"
	}
	return id
}

// enroll makes sure of usable credentials. A node that can't have any, because its certificate
// expired while it was off for one, goes on with what ran before.
func (b *boot) enroll(ctx context.Context) (string, error) {
	if b.persist.ReadOnly {
		return b.enrolledBefore()
	}
	if err := b.spareToken(); err != nil {
		return "", err
	}
	trust, err := b.loadTrust()
	if err != nil {
		return "", err
	}
	options := enroll.Options{
		Dir: PKIDir(b.store.Path()),
		Discover: func(ctx context.Context) (enroll.Bootstrap, error) {
			if b.unidentified != nil {
				return enroll.Bootstrap{}, b.unidentified
			}
			if err := b.needNetwork(ctx); err != nil {
				return enroll.Bootstrap{}, err
			}
			return Bootstrap(ctx, b.discovered, b.enrollPatience(), b.notify)
		},
		AgentVersion: version.Get().Version,
		Architecture: runtime.GOARCH,
		KeyKind:      enroll.KeyKind(trust.NodeKey),
		Clock:        judge{b},
		HTTP:         nodehttp.Options{Now: b.now},
		Backoff:      b.enrollPatience(),
		Notify:       b.notify,
		DMIUUID:      b.discovered.DMIUUID,
		Online:       b.needNetwork,
		// An operator may take days: who has something to run without a certificate goes on.
		Wait:  len(b.candidates()) == 0 && b.mode != Namespace,
		Waits: b.waitsFor,
		Shut:  b.shut,
	}
	var credentials *enroll.Credentials
	var situation enroll.Situation
	err = b.bounded(ctx, enrollMost, func(ctx context.Context) (err error) {
		credentials, situation, err = enroll.Ensure(ctx, options)
		return err
	})
	b.settleClaim(err)
	b.leaveOut(err)
	if err != nil && ctx.Err() == nil {
		if err = b.fallBack(err); err == nil {
			return fmt.Sprintf("credentials are %s", situation), nil
		}
	}
	if err != nil {
		return "", err
	}
	b.credentials = credentials
	b.facts.InstanceID = credentials.InstanceID
	return fmt.Sprintf("credentials were %s; certificate of %s until %s",
		situation, credentials.InstanceID, credentials.Leaf.NotAfter.UTC().Format("2006-01-02")), nil
}

// waitsFor says that an operator is to decide.
func (b *boot) waitsFor(w *enroll.Waiting) {
	b.voice.say("          the renewal of this node's certificate waits for an operator: %s", w.Message)
}

// enrolledBefore is enroll where nothing can be written: the platform isn't asked for a list either.
func (b *boot) enrolledBefore() (string, error) {
	err := fault.New(fault.Refuse, fault.Mount, "mount "+b.persistDir+" writable; look at the disk", "%s can only be read", b.persistDir)
	if err = b.fallBack(err); err != nil {
		return "", err
	}
	return "nothing; the disk can only be read", nil
}

// enrollMost bounds, whatever the platform does, what a node spends on credentials that has something to run without.
const enrollMost = 2 * time.Minute

// enrollPatience returns how long to ask for credentials: briefly where there is something to run
// without them.
func (b *boot) enrollPatience() nodehttp.Backoff {
	if len(b.candidates()) > 0 || b.mode == Namespace {
		return nodehttp.Backoff{Tries: 5, Elapsed: 30 * time.Second}
	}
	return nodehttp.Backoff{Elapsed: 4 * time.Minute, First: time.Second, Max: 15 * time.Second}
}

// notify says that a call failed which is tried again.
func (b *boot) notify(err error, wait time.Duration) {
	b.voice.say("          %v; trying again in %s", err, wait.Round(100*time.Millisecond))
}
