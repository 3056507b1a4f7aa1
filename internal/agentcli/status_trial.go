package agentcli

import (
	"fmt"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/health"
	"github.com/powernode/powernode-agent/internal/retain"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/trial"
)

// trialDoc is the attempt that this boot is at a generation that isn't known to be good.
type trialDoc struct {
	Generation uint64 `json:"generation"`
	// Attempt of Attempts: which boot with it this is.
	Attempt  int `json:"attempt"`
	Attempts int `json:"attempts"`
	// Verdict is the health gate's, "waiting" before it has one; Reasons are what is missing or wrong.
	Verdict health.Outcome `json:"verdict"`
	Reasons []string       `json:"reasons,omitempty"`
}

// failedDoc is a generation that isn't tried any more.
type failedDoc struct {
	Generation uint64 `json:"generation"`
	Reason     string `json:"reason"`
	// At is when it was found bad; zero where it never came that far.
	At time.Time `json:"at,omitzero"`
}

// trialOf returns the trial that this boot is, or nil where the generation is known to be good. One that is tried
// because it went live is the current one before it is good.
func trialOf(facts boot.Facts, in trial.Input, runDir string) *trialDoc {
	if !facts.Health.Trial || facts.Generation == in.Current && healthState(in, facts.Generation) == retain.Good {
		return nil
	}
	doc := &trialDoc{Generation: facts.Generation, Attempt: facts.Health.Attempt, Attempts: facts.Health.Attempts, Verdict: health.Wait}
	report, err := health.ReadReport(runDir)
	switch {
	case err != nil:
		doc.Reasons = []string{"powernode-agent service hasn't begun to judge it"}
	case report.Generation == facts.Generation:
		doc.Verdict, doc.Reasons = report.Outcome, report.Reasons
	}
	return doc
}

// String returns the attempt in words.
func (t trialDoc) String() string {
	return fmt.Sprintf("attempt %d of %d with generation %d", t.Attempt, t.Attempts, t.Generation)
}

func healthState(in trial.Input, n uint64) retain.State {
	return retain.HealthOf(retain.Input{Input: in}, n).State
}

// lastFailed returns the newest generation that isn't tried any more, or nil where there is none.
func lastFailed(in trial.Input) *failedDoc {
	var doc *failedDoc
	for _, t := range in.Trials {
		if t.Exhausted() && healthState(in, t.Generation) != retain.Good {
			doc = &failedDoc{Generation: t.Generation, Reason: trial.Reason(t), At: t.FailedAt}
		}
	}
	return doc
}

// trials adds what is known of generations that aren't good to the status.
func (d *statusDoc) trials(st *store.Store, facts boot.Facts, runDir string) {
	// What is damaged of it has been said, or is of no use to this boot.
	in, _ := trial.Read(st)
	d.LastFailed = lastFailed(in)
	if f := d.LastFailed; f != nil && f.Generation == in.Staged {
		d.Reasons = append(d.Reasons, fmt.Sprintf("generation %d was staged, and isn't tried any more: %s", f.Generation, f.Reason))
	}
	if d.Trial = trialOf(facts, in, runDir); d.Trial != nil {
		text := d.Trial.String() + " isn't found good yet"
		if d.Trial.Verdict == health.Bad {
			text = d.Trial.String() + " was found bad"
		}
		d.Reasons = append(d.Reasons, text)
	}
}

// trialRows are the lines of the table about trials.
func (d statusDoc) trialRows() [][2]string {
	var rows [][2]string
	if t := d.Trial; t != nil {
		text := fmt.Sprintf("%s: %s", t, t.Verdict)
		if len(t.Reasons) > 0 {
			text += "; " + strings.Join(t.Reasons, "; ")
		}
		rows = append(rows, [2]string{"trial", text})
	}
	if f := d.LastFailed; f != nil {
		rows = append(rows, [2]string{"failed", fmt.Sprintf("generation %d: %s", f.Generation, f.Reason)})
	}
	return rows
}
