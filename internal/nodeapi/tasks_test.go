package nodeapi

import (
	"encoding/json"
	"strings"
	"testing"
)

func wholeHeartbeat() Heartbeat {
	hb := Heartbeat{
		BootID: "6b0f9f2e-1d1c-4b0e-9f5d-2a1f4f1c0e11", AgentVersion: "v1.2.3", Architecture: "amd64", UptimeSeconds: 1 << 40,
		ModuleDigests: map[string]string{}, MountState: MountMounted, LoadAverage: strings.Repeat("9", 64), MemoryFreeKB: 1 << 50,
		RootDigest: strings.Repeat("b", 64), IntegrityLevel: "enforced", Generation: 1 << 60, Remarks: []string{strings.Repeat("r", MaxBootText)},
		Machine: Machine{DMIUUID: "d", VMGenerationID: "v"}, CABundleSHA256: strings.Repeat("c", 64), ConfigDigest: strings.Repeat("d", 64),
	}
	for _, id := range strings.Fields("a b c d e f g h i j k l m n o p q r s t u v w x y z") {
		hb.ModuleDigests[id+"-0dfc-400a-89a7-164e0138d179"] = "sha256:" + strings.Repeat(id, 64)
	}
	hb.StateHash = hb.Hash()
	return hb
}

// TestPulse: a node of which nothing changed says it in less than 1 KiB, however much it runs.
func TestPulse(t *testing.T) {
	hb := wholeHeartbeat()
	text, err := json.Marshal(hb.Pulse())
	if err != nil || len(text) >= 1<<10 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	var back Heartbeat
	if err := json.Unmarshal(text, &back); err != nil || !back.IsPulse() || back.Pulse() != hb.Pulse() {
		t.Errorf("%+v, %v", back, err)
	}
	if hb.IsPulse() || (Heartbeat{}).IsPulse() {
		t.Error("a whole heartbeat counts as a pulse")
	}
}

// TestHash: what changes by itself isn't part of the state, everything else is.
func TestHash(t *testing.T) {
	hash := wholeHeartbeat().Hash()
	for name, alter := range map[string]func(*Heartbeat){
		"nothing": func(*Heartbeat) {},
		"pulse": func(hb *Heartbeat) {
			hb.BootID, hb.UptimeSeconds, hb.LoadAverage, hb.MemoryFreeKB, hb.StateHash = "b", 1, "1", 1, "x"
		},
	} {
		hb := wholeHeartbeat()
		if alter(&hb); hb.Hash() != hash {
			t.Errorf("%s: another hash", name)
		}
	}
	for name, alter := range map[string]func(*Heartbeat){
		"version":      func(hb *Heartbeat) { hb.AgentVersion = "x" },
		"architecture": func(hb *Heartbeat) { hb.Architecture = "arm64" },
		"modules":      func(hb *Heartbeat) { delete(hb.ModuleDigests, "a-0dfc-400a-89a7-164e0138d179") },
		"mount":        func(hb *Heartbeat) { hb.MountState = MountUnmounted },
		"root":         func(hb *Heartbeat) { hb.RootDigest = "" },
		"level":        func(hb *Heartbeat) { hb.IntegrityLevel = "checked" },
		"generation":   func(hb *Heartbeat) { hb.Generation++ },
		"remarks":      func(hb *Heartbeat) { hb.Remarks = nil },
		"machine":      func(hb *Heartbeat) { hb.Machine.DMIUUID = "e" },
		"bundle":       func(hb *Heartbeat) { hb.CABundleSHA256 = "" },
		"config":       func(hb *Heartbeat) { hb.ConfigDigest = "" },
	} {
		hb := wholeHeartbeat()
		if alter(&hb); hb.Hash() == hash {
			t.Errorf("%s: the same hash", name)
		}
	}
	if (Heartbeat{}).Hash() != (Heartbeat{ModuleDigests: map[string]string{}}).Hash() {
		t.Error("no modules and an empty list of them differ")
	}
}

func TestCommand(t *testing.T) {
	for name, want := range map[string]struct {
		kind           TaskKind
		action         string
		known, refused bool
	}{
		"start":        {TaskInit, "start", true, false},
		"restart":      {TaskInit, "restart", true, false},
		"sync_modules": {TaskSync, "", true, false},
		"apply_config": {TaskSync, "", true, false},
		"reboot":       {TaskReboot, "", true, false},
		"terminate":    {"", "", false, true},
		"ssh_command":  {"", "", false, true},
		"custom":       {"", "", false, true},
		"provision":    {"", "", false, false},
		"":             {"", "", false, false},
	} {
		kind, action, known, refused := Command(name)
		if kind != want.kind || action != want.action || known != want.known || refused != want.refused {
			t.Errorf("%q: %q %q %v %v", name, kind, action, known, refused)
		}
	}
}

func TestKinds(t *testing.T) {
	for _, k := range TaskKinds() {
		if traits, known := k.Traits(); !known || traits.Deadline <= 0 {
			t.Errorf("%s: %+v %v", k, traits, known)
		}
	}
	if traits, known := TaskKind("exec").Traits(); known || traits.Class != ClassRoot || traits.Deadline <= 0 {
		t.Errorf("an unknown kind: %+v %v", traits, known)
	}
	for s, ended := range map[TaskState]bool{TaskPending: false, TaskLeased: false, TaskCancelling: false, TaskComplete: true, TaskFailed: true, TaskCancelled: true} {
		if s.Ended() != ended {
			t.Error(s)
		}
	}
	if got := TaskPath(PathTaskRenew, "a/b"); got != PathTasks+"/a%2Fb/renew" {
		t.Error(got)
	}
}
