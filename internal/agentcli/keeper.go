package agentcli

import (
	"log/slog"
	"runtime"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/signedtime"
	"github.com/powernode/powernode-agent/internal/store"
)

// newKeeper returns what mends the generation that runs.
func newKeeper(stateDir string, facts boot.Facts, log *slog.Logger) *reconcile.Keeper {
	return &reconcile.Keeper{
		StateDir: stateDir, Log: log,
		Generation: func() uint64 {
			if now, err := boot.ReadFacts("/"); err == nil {
				return now.Generation
			}
			return facts.Generation
		},
		New: func(st *store.Store) (*reconcile.Reconciler, error) {
			trust, err := boot.LoadTrust(boot.TrustPath)
			if err != nil {
				return nil, err
			}
			return newReconciler(st, trust, facts.Level, reconcile.Config{})
		},
	}
}

// newReconciler returns a Reconciler on an open store, with the node's credentials as far as they
// serve.
func newReconciler(st *store.Store, trust boot.Trust, level mount.Level, c reconcile.Config) (*reconcile.Reconciler, error) {
	c.Store, c.Verifier, c.Arch, c.Level = st, trust.Verifier, runtime.GOARCH, level
	clock := openClock(st.Path())
	if c.ReadOnly {
		// What it is told by the platform isn't kept either.
		clock = signedtime.Open("", signedtime.Options{Floor: []time.Time{clock.Floor()}})
	}
	// Without credentials there are still registries that ask for none.
	certificates := enroll.NewKeeper(enroll.Options{Dir: boot.PKIDir(st.Path()), Clock: clock})
	c.Now, c.Prepare = certificates.Now, certificates.Prepare
	if credentials, err := enroll.Load(boot.PKIDir(st.Path()), certificates.Now()); err == nil {
		c.Credentials = credentials
	}
	return reconcile.New(c)
}
