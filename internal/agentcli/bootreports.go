package agentcli

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/health"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/trial"
)

// bootReports is what a node knows of its last boots, and which of it the platform has. It is used by
// one goroutine.
type bootReports struct {
	stateDir string
	facts    boot.Facts
	// told maps a boot to the hash of the report that was acknowledged; nil before it is read.
	told map[string]string
}

// reportsName is the file in the directory of record that holds what the platform was told; a disk
// without it tells the platform once more, which does no harm.
const (
	reportsName = "boot-reports.json"
	reportsMax  = 64 << 10
)

type toldDoc struct {
	// Acknowledged maps boot IDs to the SHA-256 of the report.
	Acknowledged map[string]string `json:"acknowledged"`
}

// Pending implements runtime.BootSource.
func (b *bootReports) Pending() ([]nodeapi.BootReport, error) {
	if b.told == nil {
		b.read()
	}
	reports, err := b.all()
	return slices.DeleteFunc(reports, func(r nodeapi.BootReport) bool { return b.told[r.BootID] == hashOf(r) }), err
}

// Acknowledged implements runtime.BootSource. That it can't be written down is no reason to tell the
// platform again while this process lives.
func (b *bootReports) Acknowledged(r nodeapi.BootReport) error {
	b.told[r.BootID] = hashOf(r)
	reports, _ := b.all()
	doc := toldDoc{Acknowledged: make(map[string]string)}
	for _, r := range reports {
		if hash, ok := b.told[r.BootID]; ok {
			doc.Acknowledged[r.BootID] = hash
		}
	}
	if dir, err := durable.OpenDir(b.stateDir, nil); err == nil {
		_ = dir.WriteJSON(reportsName, doc, 0o600, "boot-reports")
		dir.Close()
	}
	return nil
}

func (b *bootReports) read() {
	b.told = make(map[string]string)
	// On a disk that can't be written the next boot reads more than it has to.
	_ = boot.CameUp(b.stateDir, b.facts.Journal.BootID)
	dir, err := durable.OpenDir(b.stateDir, nil)
	if err != nil {
		return
	}
	defer dir.Close()
	var doc toldDoc
	if err := dir.ReadJSON(reportsName, reportsMax, &doc); err == nil && doc.Acknowledged != nil {
		b.told = doc.Acknowledged
	}
}

func hashOf(r nodeapi.BootReport) string {
	data, err := json.Marshal(r)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// all returns the reports of the last boots, oldest first.
func (b *bootReports) all() ([]nodeapi.BootReport, error) {
	journals, err := boot.ReadJournals(b.stateDir)
	if now := b.facts.Journal; now.BootID != "" && !slices.ContainsFunc(journals, func(j boot.Journal) bool { return j.BootID == now.BootID }) {
		// A disk that can't be written to keeps none.
		journals = append([]boot.Journal{now}, journals...)
	}
	in, trialErr := b.trials()
	reports := make([]nodeapi.BootReport, 0, len(journals))
	seen := make(map[string]bool)
	for _, j := range journals {
		// In namespaces, one run of the kernel has many boots: the last counts.
		if j.BootID == "" || seen[j.BootID] {
			continue
		}
		seen[j.BootID] = true
		reports = append(reports, b.report(j, in))
	}
	slices.Reverse(reports)
	return reports, errors.Join(err, trialErr)
}

func (b *bootReports) trials() (trial.Input, error) {
	st, err := store.Open(b.stateDir, store.Options{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return trial.Input{}, nil
	}
	if err != nil {
		return trial.Input{}, err
	}
	defer st.Close()
	return trial.Read(st)
}

// report adds to a journal what the rest of the node knows of that boot.
func (b *bootReports) report(j boot.Journal, in trial.Input) nodeapi.BootReport {
	r := j.Report()
	now := j.BootID == b.facts.Journal.BootID
	if now {
		r.RootDigest, r.IntegrityLevel, r.Remarks = b.facts.RootDigest.String(), string(b.facts.Level), b.facts.Remarks
		// The journal on the disk may be older than the hand-over.
		if b.facts.Journal.Outcome == boot.HandedOver {
			r.Outcome, r.EndedMillis, r.Generation = nodeapi.BootHandedOver, b.facts.Journal.EndedMillis, b.facts.Generation
		}
	}
	for _, t := range in.Trials {
		switch {
		case t.BootID == j.BootID && t.Generation == r.Generation:
			r.Trial = trialReport(t, now)
		case now && t.Exhausted() && t.Generation > r.Generation && !b.aheadOf(t):
			r.Fallback = trialReport(t, false)
		}
	}
	return r
}

// aheadOf reports whether an attempt was counted by the running system: for the soft-reboot that is about to leave it. Nothing is known of
// that attempt yet, though it may be the last one, and the kernel's boot is the same. What a boot gave up on its way, it counted before.
func (b *bootReports) aheadOf(t store.Trial) bool {
	up := health.Uptime() - time.Duration(b.facts.Health.HandedOverSeconds)*time.Second
	return t.Failed == "" && t.BootID != "" && t.BootID == b.facts.Journal.BootID && b.facts.Health.HandedOverSeconds > 0 && t.Begun.After(time.Now().Add(time.Second-up))
}

func trialReport(t store.Trial, now bool) *nodeapi.BootTrial {
	r := &nodeapi.BootTrial{Generation: t.Generation, Attempts: t.Attempts, Limit: t.Limit, Verdict: nodeapi.TrialUnderWay}
	switch {
	case !t.Good.IsZero() && t.Failed == "":
		r.Verdict = nodeapi.TrialGood
	case t.Failed != "", t.Exhausted() && !now:
		r.Verdict, r.Reason = nodeapi.TrialFailed, trial.Reason(t)
	}
	return r
}
