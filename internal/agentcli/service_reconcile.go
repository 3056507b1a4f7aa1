package agentcli

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/retain"
	"github.com/powernode/powernode-agent/internal/runtime"
	"github.com/powernode/powernode-agent/internal/store"
)

// reconcileMode says how a service follows what the platform says of its node.
type reconcileMode string

// The modes.
const (
	reconcileLive  reconcileMode = "live"
	reconcileStage reconcileMode = "stage"
	reconcileOff   reconcileMode = "off"
)

// reconcileEnv is the environment's word on the mode; on a kernel command line it is systemd.setenv=POWERNODE_RECONCILE=off.
const reconcileEnv = "POWERNODE_RECONCILE"

func reconcileDefault(getenv func(string) string) reconcileMode {
	if m := getenv(reconcileEnv); m != "" {
		return reconcileMode(m)
	}
	return reconcileLive
}

func (m reconcileMode) check() error {
	switch m {
	case reconcileLive, reconcileStage, reconcileOff:
		return nil
	}
	return fault.New(fault.Refuse, fault.Input, "use live, stage or off", "--reconcile %.20q", m)
}

// newReconcileLoop returns the loop that keeps a booted node in step.
func newReconcileLoop(w *platformWork, mode reconcileMode, facts boot.Facts, name string, log *slog.Logger) *runtime.Reconcile {
	synced := readSynced(boot.RunDir)
	return runtime.NewReconcile(runtime.ReconcileConfig{
		Do: func(ctx context.Context) (string, error) {
			o := nodeapi.TaskOptions{Stage: mode == reconcileStage}
			answer, err := w.outside.do(ctx, reconcileUnit, "reconcile", false, taskArgs(nodeapi.TaskSync, o, w.stateDir), nil)
			if err != nil {
				return "", err
			}
			config, changed, err := syncOutcome(answer)
			if changed || err != nil {
				w.audit("sync", changed, err)
			}
			return config, err
		},
		Ready: func() string { return onTrial(w.stateDir) },
		Begun: synced.Boot == name, Config: synced.ConfigDigest, Log: log,
		Told: func() {
			w.say()
			if s := w.service.Load(); s != nil && !w.reconcile.Busy() {
				s.Beat()
			}
		},
	})
}

// syncOutcome returns the digest of the configuration that a sync has come to, whether it has changed anything, and what went wrong with it.
func syncOutcome(answer *taskAnswer) (config string, changed bool, err error) {
	var doc struct {
		ConfigDigest string `json:"config_digest"`
		Parts        []struct {
			Result    syncResult `json:"result"`
			Unreached bool       `json:"unreached"`
		} `json:"parts"`
	}
	// Without a result there is none; the answer says why.
	_ = json.Unmarshal(answer.Result, &doc)
	kind := fault.Refuse // what was refused is asked for again, in its time
	for _, p := range doc.Parts {
		if p.Unreached {
			kind = fault.Retry
		}
		changed = changed || p.Result == syncChanged || p.Result == syncPartly
	}
	_, err = answer.outcome()
	if answer.Code == cli.ExitPartial && err != nil {
		err = fault.New(kind, fault.Partial, "powernode-agent status says more", "%w", err)
	}
	return doc.ConfigDigest, changed, err
}

// onTrial says why a node isn't to be brought in step now; "" where it may be. A generation that is on trial is judged first: another
// one in its place would be judged by what it was.
func onTrial(stateDir string) string {
	facts, err := boot.ReadFacts("/")
	if err != nil || !facts.Health.Trial {
		return ""
	}
	st, err := store.Open(stateDir, store.Options{ReadOnly: true})
	if err != nil {
		return ""
	}
	defer st.Close()
	in, _, err := retain.Read(st)
	if err != nil {
		return ""
	}
	switch retain.HealthOf(in, facts.Generation).State {
	case retain.Good, retain.Live:
		return ""
	default:
		return fmt.Sprintf("generation %d is on trial, and isn't found good yet", facts.Generation)
	}
}

// syncedName is the file in the directory of the boot that says to what the node was brought; it is small.
const (
	syncedName = "synced.json"
	syncedMax  = 4 << 10
)

// synced is what a sync has come to in this boot.
type synced struct {
	// Boot names the boot, as bootName does.
	Boot         string    `json:"boot"`
	At           time.Time `json:"at"`
	ConfigDigest string    `json:"config_digest,omitempty"`
}

// readSynced returns the zero value where nothing is known.
func readSynced(runDir string) synced {
	var s synced
	dir, err := durable.OpenDir(runDir, nil)
	if err != nil {
		return s
	}
	defer dir.Close()
	if err := dir.ReadJSON(syncedName, syncedMax, &s); err != nil {
		return synced{}
	}
	return s
}

// keepSynced keeps what a sync has come to. That it can't be kept has the service ask once more.
func keepSynced(runDir string, doc *syncDoc) {
	if doc.DryRun {
		return
	}
	facts, err := boot.ReadFacts("/")
	kernel, _ := runtime.ReadFacts("/proc")
	if err != nil || kernel.BootID == "" {
		return
	}
	s := synced{Boot: bootName(facts, kernel.BootID), At: time.Now().UTC(), ConfigDigest: doc.ConfigDigest}
	for _, p := range doc.Parts {
		if p.Part != partModules && p.Result == syncFailed {
			s.ConfigDigest = ""
		}
	}
	dir, err := durable.OpenDir(runDir, nil)
	if err != nil {
		return
	}
	defer dir.Close()
	_ = dir.WriteJSON(syncedName, s, 0o600, "synced")
}
