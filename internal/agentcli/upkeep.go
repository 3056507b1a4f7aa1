package agentcli

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/runtime"
	"github.com/powernode/powernode-agent/internal/store"
)

// upkeep is what the service does for the root that runs, now and then.
type upkeep struct {
	// root is where the system's root directory is.
	root, stateDir string
	// facts are those by which the service began.
	facts boot.Facts
	log   *slog.Logger
}

// now are the facts as they are: what runs changes without a boot.
func (u upkeep) now() boot.Facts {
	if now, err := boot.ReadFacts(u.root); err == nil {
		return now
	}
	return u.facts
}

// loops returns the loops of it, with what there is to remark in heartbeats. A "/" that isn't the root
// of this boot, as in a container beside it, is none of the service's business.
func (u upkeep) loops(ctx context.Context) ([]runtime.Loop, func() []string) {
	if union, err := mount.UnionAt("/"); err != nil || union.Digest != u.facts.Booted() {
		return nil, func() []string { return nil }
	}
	kind := u.facts.Root.Upper
	room := &roomWatch{log: u.log, measure: func(last rootfs.Fullness) (rootfs.Room, error) { return rootfs.RoomOf("/", kind, last) }}
	// The first heartbeat is to have it; the loop logs what goes wrong.
	_, _ = room.look(ctx)
	loops := []runtime.Loop{runtime.Chore{Name: "look how full the writable layer is", Do: room.look, Every: 20 * time.Second, Log: u.log}}
	if !u.facts.Persist.ReadOnly {
		loops = append(loops, runtime.Chore{
			Name: "keep the files that the node is recognised by", Do: u.keep, Soon: 10 * time.Second, Every: 2 * time.Minute, Last: true, Log: u.log,
		})
		if kind == rootfs.OnPersist {
			loops = append(loops, runtime.Chore{Name: "remove old writable layers", Do: u.prune, Every: 5 * time.Minute, Log: u.log})
		}
		loops = append(loops, runtime.Chore{Name: "remove what nothing needs any more", Do: (&collector{upkeep: u}).collect, Every: 5 * time.Minute, Log: u.log})
	}
	return loops, room.Remarks
}

// keep keeps machine ID, host name and host keys.
func (u upkeep) keep(context.Context) (bool, error) {
	saved, err := rootfs.Save("/", u.stateDir, u.facts.Root.Shipped)
	if len(saved) > 0 {
		u.log.Info("files of /etc are kept for the next boots", "files", strings.Join(saved, " "))
	}
	return false, err
}

// prune removes the writable layers of roots that no generation has any more, once the one that
// runs is known to be good. It does nothing unless every generation's record can be read, and
// while somebody else changes what the node is going to run.
func (u upkeep) prune(context.Context) (done bool, err error) {
	lock, err := reconcile.Lock(u.stateDir)
	if fault.KindOf(err) == fault.Retry {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer lock.Unlock()
	keep, err := u.rootsToKeep()
	if err != nil || keep == nil {
		return false, err
	}
	n, err := rootfs.PruneUppers(u.stateDir, keep, nil)
	if n > 0 {
		u.log.Info("old writable layers are removed", "count", n)
	}
	return err == nil, err
}

// rootsToKeep returns the roots that may still run, or nil while the running one isn't known to be good.
func (u upkeep) rootsToKeep() (map[fsverity.Digest]struct{}, error) {
	st, err := store.Open(u.stateDir, store.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer st.Close()
	current, err := st.Pointer(store.Current)
	running := u.now()
	if err != nil || current != running.Generation {
		return nil, err
	}
	generations, err := st.Generations()
	if err != nil {
		return nil, err
	}
	keep := map[fsverity.Digest]struct{}{running.Booted(): {}}
	for _, g := range generations {
		keep[g.RootDigest] = struct{}{}
	}
	return keep, nil
}

// roomWatch tells when the writable layer fills up: in the log when that changes, and in each
// heartbeat while it lasts.
type roomWatch struct {
	measure func(last rootfs.Fullness) (rootfs.Room, error)
	log     *slog.Logger
	last    rootfs.Fullness

	mu     sync.Mutex
	remark string
}

// look measures once.
func (w *roomWatch) look(context.Context) (bool, error) {
	room, err := w.measure(w.last)
	if err != nil {
		return false, err
	}
	text, hint := room.Warning()
	switch was := w.last; {
	case room.Fullness == was || was == "" && text == "":
	case text == "":
		w.log.Info("the writable layer of the root has room again", "percent", room.Percent)
	case was == rootfs.Full:
		w.log.Info(text, "used_bytes", room.UsedBytes, "available_bytes", room.AvailableBytes)
	default:
		w.log.Warn(text, "used_bytes", room.UsedBytes, "available_bytes", room.AvailableBytes, "hint", hint)
	}
	w.last = room.Fullness
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remark = sentence(text, hint)
	return false, nil
}

// Remarks says that there is little room left, if so.
func (w *roomWatch) Remarks() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.remark == "" {
		return nil
	}
	return []string{w.remark}
}

// sentence joins what is wrong and what to do about it.
func sentence(text, hint string) string {
	if hint == "" {
		return text
	}
	return text + "; " + hint
}

// remarksOf joins remarks of several sources.
func remarksOf(sources ...func() []string) func() []string {
	return func() []string {
		var all []string
		for _, s := range sources {
			all = append(all, s()...)
		}
		return all
	}
}
