package operatorapi

import "time"

// Boot is what one boot of a node said of itself.
type Boot struct {
	BootID string `json:"boot_id"`
	// Number counts the boots of the node's disk from 1; 0 where it couldn't be written to.
	Number     uint64    `json:"number,omitempty"`
	ReceivedAt time.Time `json:"received_at"`
	// BegunAt is by the node's clock; times in milliseconds are since power-on.
	BegunAt       time.Time `json:"begun_at"`
	AgentVersion  string    `json:"agent_version"`
	Mode          string    `json:"mode,omitempty"`
	StartedMillis int64     `json:"started_ms"`
	EndedMillis   int64     `json:"ended_ms,omitempty"`
	// Outcome is "under way" (also of a boot that was cut off), "in recovery", "handed over" or
	// "ended"; Stage and Failure say where and why it didn't get on.
	Outcome string `json:"outcome"`
	Stage   string `json:"stage,omitempty"`
	Failure string `json:"failure,omitempty"`
	// Generation is the one that the boot came to.
	Generation     uint64      `json:"generation,omitempty"`
	RootDigest     string      `json:"root_digest,omitempty"`
	IntegrityLevel string      `json:"integrity_level,omitempty"`
	Stages         []BootStage `json:"stages"`
	Remarks        []string    `json:"remarks,omitempty"`
	// Trial is that of Generation, where it was new; Fallback that of a newer generation whose
	// failure is the reason for Generation.
	Trial    *BootTrial `json:"trial,omitempty"`
	Fallback *BootTrial `json:"fallback,omitempty"`
}

// BootStage is one stage of a boot.
type BootStage struct {
	Name        string `json:"name"`
	BegunMillis int64  `json:"begun_ms"`
	Millis      int64  `json:"duration_ms"`
	Result      string `json:"result,omitempty"`
	Error       string `json:"error,omitempty"`
}

// BootTrial is the trial of a generation. Verdict is "under way", "good" or "failed".
type BootTrial struct {
	Generation uint64 `json:"generation"`
	Attempts   int    `json:"attempts"`
	Limit      int    `json:"limit,omitempty"`
	Verdict    string `json:"verdict"`
	Reason     string `json:"reason,omitempty"`
}
