package boot

import (
	"errors"
	"io/fs"
	"time"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/bootconfig"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/signedtime"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/trial"
)

// boot is one boot under way: what each stage found for those after it.
type boot struct {
	config   Config
	mode     Mode
	facts    Facts
	voice    *voice
	course   *course
	settings bootconfig.Config
	// cmdline is the kernel command line, for those who read it themselves.
	cmdline []bootconfig.Parameter
	// unprepared is why the kernel file systems couldn't be mounted.
	unprepared error

	// persist is what outlives the boot, persistDir where it is.
	persist    Persist
	persistDir string
	uplink     uplink
	// following ends the loading of drivers of devices that appear; nil where that doesn't go on.
	following func()

	store *store.Store
	lock  *durable.Lock
	// onlyReads says that persist counts as read-only because the store couldn't be opened for writing.
	onlyReads bool
	trust     *Trust
	level     mount.Level

	// clock knows the platform's time once it was asked; nil before the directory of record is open.
	clock *signedtime.Clock
	// setTime sets the machine's clock.
	setTime     func(time.Time) error
	credentials *enroll.Credentials
	discovered  identity.Identity
	// unidentified says why discovered isn't enough to enroll with.
	unidentified error
	claims       claims
	// shut says that the platform ended a handshake because of the credentials, which seem good here.
	shut bool
	// reached says that the platform answered in this boot.
	reached bool
	// assigned is its list; nil where it wasn't asked.
	assigned *change.Last

	// root is the root that was made.
	root *rootfs.Root

	plan plan
	// deep says that proving reads every byte, whatever the kernel would check by itself.
	deep        bool
	client      *platform
	reconciler  *reconcile.Reconciler
	proven      []*assemble.Proven
	composition *assemble.Composition
	generation  store.Generation
	// running is the candidate that is mounted.
	running trial.Candidate
	// silence is what listen found; it listens once.
	silence  silence
	listened bool
	// triesAgain says that a failure of the boot isn't its end, and chances how often it didn't enroll because of that.
	triesAgain bool
	chances    int
	// patient says that the machine waited in the recovery environment long enough to try once more what
	// used up its attempts without being found bad.
	patient bool
}

// lockDisk keeps two boots from working on one disk at the same time. The lock ends with this
// process, or when it becomes the new root's init.
func (b *boot) lockDisk() (err error) {
	b.lock, err = reconcile.Lock(b.store.Path())
	return err
}

// undo takes away what a boot that doesn't go on has mounted and learned, so that its stages can run
// again.
func (b *boot) undo() {
	if b.root != nil {
		b.root.Unmake()
		b.root = nil
	}
	if b.onlyReads {
		b.closeStore()
	}
	b.dropPlatform()
	b.plan, b.proven, b.composition, b.generation, b.running = plan{}, nil, nil, store.Generation{}, trial.Candidate{}
	b.facts.Mount, b.facts.Generation, b.facts.Refused = mount.ID{}, 0, ""
}

// dropPlatform forgets the connections; the credentials may be others the next time.
func (b *boot) dropPlatform() {
	if b.reconciler != nil {
		b.reconciler.Close()
		b.reconciler = nil
	}
}

func (b *boot) close() {
	b.dropPlatform()
	if b.client != nil {
		b.client.Close()
	}
	b.voice.journal.close()
	b.closeStore()
	b.closeNetwork()
	b.stopDrivers()
}

func (b *boot) closeStore() {
	if b.onlyReads { // the next attempt may be able to write
		b.onlyReads, b.persist.ReadOnly = false, false
	}
	if b.lock != nil {
		b.lock.Unlock()
		b.lock = nil
	}
	if b.store != nil {
		b.store.Close()
		b.store = nil
	}
}

// loadTrust reads the trust policy, once.
func (b *boot) loadTrust() (*Trust, error) {
	if b.trust == nil {
		t, err := loadTrust(b.config.Trust, b.now)
		if err != nil {
			return nil, err
		}
		b.trust = &t
	}
	return b.trust, nil
}

// openStore opens the directory of record, with a journal of this boot in it. A disk that can't be
// written to is read; so is a store that can't be made ready for writing, as long as it holds something to boot.
func (b *boot) openStore() error {
	if b.store != nil {
		return nil
	}
	err := b.openStoreTo(b.persist.ReadOnly)
	_, busy := errors.AsType[*durable.LockedError](err)
	if err == nil || b.persist.ReadOnly || busy || refused(err) {
		return err
	}
	if b.openStoreTo(true) != nil {
		return err
	}
	b.persist.ReadOnly, b.onlyReads = true, true
	_ = b.survey() // identify says what is wrong
	if len(b.candidates()) == 0 {
		b.closeStore()
		return err
	}
	b.remark(err.Error()+": nothing is written there", fault.HintOf(err))
	return nil
}

func (b *boot) openStoreTo(readOnly bool) error {
	st, err := store.Open(StateDir(b.persistDir), store.Options{ReadOnly: readOnly})
	if readOnly && errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Refuse, fault.Mount, "make the disk writable, or name another with powernode.persist: a new node has to keep what it fetches",
			"%s holds nothing to boot, and can only be read: %w", b.persistDir, err)
	}
	if err != nil {
		return err
	}
	b.store = st
	if why := st.Recovered().Format; why != "" {
		b.remark(why, "")
	}
	if readOnly {
		return nil
	}
	if err := b.lockDisk(); err != nil {
		b.closeStore()
		return err
	}
	if err := b.voice.journal.open(st.Path()); err != nil {
		b.remark(err.Error(), "")
	}
	return nil
}

// required returns the least integrity level that trust policy and settings accept.
func (b *boot) required() mount.Level {
	if b.settings.Integrity == bootconfig.Enforced {
		return mount.Enforced
	}
	return b.trust.Required
}
