package nodeapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Pulse is a heartbeat of a node whose state is what it was: the fields of Heartbeat that change by themselves, and the hash by
// which the platform knows the rest. It goes to the same path.
type Pulse struct {
	BootID        string `json:"boot_id"`
	UptimeSeconds int64  `json:"uptime_seconds"`
	LoadAverage   string `json:"load_average,omitempty"`
	MemoryFreeKB  int64  `json:"memory_free_kb,omitempty"`
	StateHash     string `json:"state_hash"`
}

// Pulse returns what a heartbeat says beside its state.
func (hb Heartbeat) Pulse() Pulse {
	return Pulse{BootID: hb.BootID, UptimeSeconds: hb.UptimeSeconds, LoadAverage: hb.LoadAverage, MemoryFreeKB: hb.MemoryFreeKB, StateHash: hb.StateHash}
}

// IsPulse reports whether a heartbeat off the wire is a Pulse: every other one says its mount state.
func (hb Heartbeat) IsPulse() bool { return hb.MountState == "" && hb.StateHash != "" }

// Hash returns the hash of a heartbeat's state, 64 hexadecimal digits: SHA-256 over the JSON of the heartbeat
// without the fields of Pulse, its fields in the order of the struct, names in objects sorted. The platform compares it, and
// doesn't compute it.
func (hb Heartbeat) Hash() string {
	hb.BootID, hb.UptimeSeconds, hb.LoadAverage, hb.MemoryFreeKB, hb.StateHash = "", 0, "", 0, ""
	if hb.ModuleDigests == nil {
		hb.ModuleDigests = map[string]string{}
	}
	text, err := json.Marshal(hb)
	if err != nil {
		// Strings, numbers and maps of strings can't fail to be encoded.
		panic(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
