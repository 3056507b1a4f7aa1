package nodeapi

import "time"

// PathBootReports takes what a node's boots say of themselves, below the platform's URL.
const PathBootReports = Base + "/status/boots"

// Bounds of a boot report: bytes of the whole, entries of its lists, bytes of a text and of a word.
// A sender cuts to them, and a platform refuses what is beyond.
const (
	MaxBootReport  = 1 << 20
	MaxBootStages  = 64
	MaxBootRemarks = 32
	MaxBootText    = 1000
	MaxBootWord    = 64
)

// BootOutcome says how a boot went.
type BootOutcome string

// The outcomes. A boot that ended while it was under way, as by a power cut, stays so for ever.
const (
	BootUnderWay   BootOutcome = "under way"
	BootInRecovery BootOutcome = "in recovery"
	BootHandedOver BootOutcome = "handed over"
	BootEnded      BootOutcome = "ended"
)

// BootReport is what a boot left of itself. The same boot, by its BootID, may be reported again as
// more of it is known; the last report counts.
type BootReport struct {
	// BootID is the kernel's, as in Heartbeat.
	BootID string `json:"boot_id"`
	// Number counts the boots of the node's disk from 1; 0 where it couldn't be written to.
	Number       uint64 `json:"number,omitempty"`
	AgentVersion string `json:"agent_version"`
	// Mode is "machine", "sysroot" or "namespace".
	Mode string `json:"mode,omitempty"`
	// BegunAt is by the node's clock, which may be wrong in a boot; times in milliseconds are
	// since power-on.
	BegunAt       time.Time   `json:"begun_at"`
	StartedMillis int64       `json:"started_ms"`
	EndedMillis   int64       `json:"ended_ms,omitempty"`
	Outcome       BootOutcome `json:"outcome"`
	// Stage and Failure say where and why the boot went into recovery, or ended.
	Stage   string `json:"stage,omitempty"`
	Failure string `json:"failure,omitempty"`
	// Generation is the one that the boot came to, with its root digest and the integrity level.
	Generation     uint64      `json:"generation,omitempty"`
	RootDigest     string      `json:"root_digest,omitempty"`
	IntegrityLevel string      `json:"integrity_level,omitempty"`
	Stages         []BootStage `json:"stages"`
	Remarks        []string    `json:"remarks,omitempty"`
	// Trial is what became of Generation, where the boot was an attempt at a new one.
	Trial *BootTrial `json:"trial,omitempty"`
	// Fallback says why the boot isn't of the newest generation: that one failed its trial.
	Fallback *BootTrial `json:"fallback,omitempty"`
}

// BootStage is one stage of a boot.
type BootStage struct {
	Name string `json:"name"`
	// BegunMillis is since power-on.
	BegunMillis int64  `json:"begun_ms"`
	Millis      int64  `json:"duration_ms"`
	Result      string `json:"result,omitempty"`
	Error       string `json:"error,omitempty"`
}

// TrialVerdict is what became of a generation's trial.
type TrialVerdict string

// The verdicts.
const (
	TrialUnderWay TrialVerdict = "under way"
	TrialGood     TrialVerdict = "good"
	TrialFailed   TrialVerdict = "failed"
)

// BootTrial is the trial of a generation: how many of its attempts were begun, and its end.
type BootTrial struct {
	Generation uint64       `json:"generation"`
	Attempts   int          `json:"attempts"`
	Limit      int          `json:"limit,omitempty"`
	Verdict    TrialVerdict `json:"verdict"`
	Reason     string       `json:"reason,omitempty"`
}

// BootReportResponse acknowledges a boot report.
type BootReportResponse struct {
	Acknowledged bool `json:"acknowledged"`
}
