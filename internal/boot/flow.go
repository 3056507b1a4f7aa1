package boot

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"syscall"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/version"
)

// boot is one boot under way: what each stage found for those after it.
type boot struct {
	config Config
	facts  Facts

	store *store.Store
	lock  *durable.Lock
	trust Trust
	level mount.Level

	credentials *enroll.Credentials
	discovered  identity.Identity
	// unidentified says why discovered isn't enough to enroll with.
	unidentified error

	// root is the root that was made.
	root *rootfs.Root

	plan        plan
	reconciler  *reconcile.Reconciler
	proven      []*assemble.Proven
	composition *assemble.Composition
	generation  store.Generation
}

// lockDisk keeps two boots from working on one disk at the same time. The lock ends with this
// process, or when it becomes the new root's init.
func (b *boot) lockDisk() error {
	dir, err := durable.OpenDir(b.store.Path(), nil)
	if err != nil {
		return err
	}
	defer dir.Close()
	b.lock, err = dir.TryLock("boot.lock", durable.Exclusive)
	return err
}

func (b *boot) close() {
	if b.reconciler != nil {
		b.reconciler.Close()
	}
	if b.lock != nil {
		b.lock.Unlock()
	}
	if b.store != nil {
		b.store.Close()
	}
}

// identify opens what is local: trust policy, store, abilities of kernel and disk, and the node's
// credentials or, where it has none that serve, its identity.
func (b *boot) identify(ctx context.Context) (string, error) {
	err := checkPersist(b.config.Persist)
	if err != nil {
		return "", err
	}
	if b.trust, err = LoadTrust(b.config.Trust); err != nil {
		return "", err
	}
	if b.store, err = store.Open(StateDir(b.config.Persist), store.Options{}); err != nil {
		return "", err
	}
	if err := b.lockDisk(); err != nil {
		return "", err
	}
	abilities, err := mount.Probe(b.store.ObjectsPath())
	if err != nil {
		return "", err
	}
	if b.level, err = mount.Decide(abilities, b.trust.Required); err != nil {
		return "", err
	}
	state, err := enroll.Inspect(PKIDir(b.store.Path()), enroll.Wish{}, b.config.Now())
	if err != nil {
		return "", err
	}
	if b.plan.ran, err = ranBefore(b.store); err != nil {
		b.remark(err.Error(), fault.HintOf(err))
	}
	if state.Credentials != nil {
		b.facts.InstanceID = state.Credentials.InstanceID
	}
	if state.Situation.Usable() {
		return fmt.Sprintf("node %s, enrolled at %s", state.Credentials.InstanceID, state.Credentials.PlatformURL), nil
	}
	b.discovered, _, b.unidentified = identity.Resolver{Sources: b.config.Places.Sources()}.Resolve(ctx)
	switch {
	case b.unidentified == nil:
		return fmt.Sprintf("node %s of %s (from %s)", orUnnamed(b.discovered.InstanceID), b.discovered.PlatformURL, b.discovered.From.PlatformURL), nil
	case len(b.plan.ran) == 0:
		return "", b.unidentified
	}
	// A node that has run before needs no platform to run again.
	return fmt.Sprintf("credentials %s, and nothing to enroll with; there is generation %d", state.Situation, b.plan.ran[0].Number), nil
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
	credentials, situation, err := enroll.Ensure(ctx, enroll.Options{
		Dir: PKIDir(b.store.Path()),
		Discover: func(context.Context) (enroll.Bootstrap, error) {
			i := b.discovered
			return enroll.Bootstrap{PlatformURL: i.PlatformURL, CAPEM: i.CAPEM, Token: i.Token, InstanceID: i.InstanceID}, b.unidentified
		},
		AgentVersion: version.Get().Version,
		Architecture: runtime.GOARCH,
		Backoff:      nodehttp.Backoff{Tries: 5},
	})
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
