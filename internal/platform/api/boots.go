package api

import (
	"math"
	"net/http"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// bootReport keeps what a boot of the node says of itself.
func (a *API) bootReport(w http.ResponseWriter, r *http.Request, node db.Standing) (any, error) {
	report, err := read[nodeapi.BootReport](w, r, nodeapi.MaxBootReport)
	if err != nil {
		return nil, err
	}
	if err := checkBootReport(report); err != nil {
		return nil, err
	}
	if err := a.db.BootReport(r.Context(), node.NodeID, report); err != nil {
		return nil, err
	}
	return nodeapi.BootReportResponse{Acknowledged: true}, nil
}

// checkBootReport refuses what no agent would say.
func checkBootReport(r nodeapi.BootReport) error {
	switch r.Outcome {
	case nodeapi.BootUnderWay, nodeapi.BootInRecovery, nodeapi.BootHandedOver, nodeapi.BootEnded:
	default:
		return invalid("outcome %.40q: want under way, in recovery, handed over or ended", r.Outcome)
	}
	for _, field := range []struct {
		name, value string
		most        int
		needed      bool
	}{
		{"boot_id", r.BootID, nodeapi.MaxBootWord, true},
		{"agent_version", r.AgentVersion, maxVersion, true},
		{"mode", r.Mode, nodeapi.MaxBootWord, false},
		{"stage", r.Stage, nodeapi.MaxBootWord, false},
		{"failure", r.Failure, nodeapi.MaxBootText, false},
		{"integrity_level", r.IntegrityLevel, nodeapi.MaxBootWord, false},
	} {
		if err := checkText(field.name, field.value, field.most, field.needed); err != nil {
			return err
		}
	}
	if r.RootDigest != "" {
		if _, err := fsverity.ParseDigest(r.RootDigest); err != nil {
			return invalid("root_digest: %v", err)
		}
	}
	if r.StartedMillis < 0 || r.EndedMillis < 0 || r.Generation > math.MaxInt64 || r.Number > math.MaxInt64 {
		return invalid("times, number and generation can't be negative or beyond 63 bits")
	}
	// A year outside of these has no form in JSON.
	if y := r.BegunAt.Year(); y < 0 || y > 9999 {
		return invalid("begun_at is of the year %d", y)
	}
	if err := checkBootStages(r.Stages); err != nil {
		return err
	}
	if len(r.Remarks) > nodeapi.MaxBootRemarks {
		return invalid("more than %d remarks", nodeapi.MaxBootRemarks)
	}
	for _, remark := range r.Remarks {
		if err := checkText("a remark", remark, nodeapi.MaxBootText, false); err != nil {
			return err
		}
	}
	for _, trial := range []*nodeapi.BootTrial{r.Trial, r.Fallback} {
		if err := checkTrial(trial); err != nil {
			return err
		}
	}
	return nil
}

func checkBootStages(stages []nodeapi.BootStage) error {
	if len(stages) > nodeapi.MaxBootStages {
		return invalid("more than %d stages", nodeapi.MaxBootStages)
	}
	for _, s := range stages {
		err := checkText("a stage's name", s.Name, nodeapi.MaxBootWord, true)
		if err == nil {
			err = checkText("a stage's result", s.Result, nodeapi.MaxBootText, false)
		}
		if err == nil {
			err = checkText("a stage's error", s.Error, nodeapi.MaxBootText, false)
		}
		if err == nil && (s.BegunMillis < 0 || s.Millis < 0) {
			err = invalid("a stage's times can't be negative")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func checkTrial(t *nodeapi.BootTrial) error {
	if t == nil {
		return nil
	}
	switch t.Verdict {
	case nodeapi.TrialUnderWay, nodeapi.TrialGood, nodeapi.TrialFailed:
	default:
		return invalid("verdict %.40q: want under way, good or failed", t.Verdict)
	}
	if t.Generation > math.MaxInt64 || t.Attempts < 0 || t.Limit < 0 {
		return invalid("a trial's numbers can't be negative or beyond 63 bits")
	}
	return checkText("a trial's reason", t.Reason, nodeapi.MaxBootText, false)
}

// boots returns what the operator sees of a node's last boots, newest first.
func (a *API) boots(r *http.Request, nodeID string) ([]operatorapi.Boot, error) {
	rows, err := a.db.Boots(r.Context(), nodeID)
	if err != nil {
		return nil, err
	}
	list := make([]operatorapi.Boot, len(rows))
	for i, b := range rows {
		list[i] = operatorapi.Boot{
			BootID: b.BootID, Number: b.Number, ReceivedAt: b.ReceivedAt, BegunAt: b.BegunAt, AgentVersion: b.AgentVersion, Mode: b.Mode,
			StartedMillis: b.StartedMillis, EndedMillis: b.EndedMillis, Outcome: string(b.Outcome), Stage: b.Stage, Failure: b.Failure,
			Generation: b.Generation, RootDigest: b.RootDigest, IntegrityLevel: b.IntegrityLevel, Stages: []operatorapi.BootStage{},
			Remarks: b.Remarks, Trial: trialView(b.Trial), Fallback: trialView(b.Fallback),
		}
		for _, s := range b.Stages {
			list[i].Stages = append(list[i].Stages, operatorapi.BootStage(s))
		}
	}
	return list, nil
}

func trialView(t *nodeapi.BootTrial) *operatorapi.BootTrial {
	if t == nil {
		return nil
	}
	return &operatorapi.BootTrial{Generation: t.Generation, Attempts: t.Attempts, Limit: t.Limit, Verdict: string(t.Verdict), Reason: t.Reason}
}
