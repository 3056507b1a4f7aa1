package boot

import "github.com/powernode/powernode-agent/internal/nodeapi"

// Report returns what the journal tells the platform. A client cuts it to the bounds of a report.
func (j Journal) Report() nodeapi.BootReport {
	r := nodeapi.BootReport{
		BootID: j.BootID, Number: j.Number, AgentVersion: j.Agent, Mode: string(j.Mode), BegunAt: j.Begun.UTC(),
		StartedMillis: j.StartedMillis, EndedMillis: j.EndedMillis, Outcome: nodeapi.BootOutcome(j.Outcome),
		Stage: j.Stage, Failure: j.Failure, Generation: j.Generation, Stages: make([]nodeapi.BootStage, len(j.Stages)),
	}
	for i, s := range j.Stages {
		r.Stages[i] = nodeapi.BootStage{Name: s.Name, BegunMillis: s.Begun, Millis: s.Millis, Result: s.Result, Error: s.Error}
	}
	return r
}
