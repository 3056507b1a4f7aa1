package api

import (
	"errors"
	"math"
	"net/http"
	"strings"
	"unicode"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/platform/registry"
)

// Bounds of what a heartbeat may hold.
const (
	maxHeartbeat = 512 << 10 // bytes
	maxVersion   = 128       // bytes of a version
	maxWord      = 64        // bytes of an ID or a word
	maxDigests   = 2000      // modules
)

// heartbeat keeps what a node says of itself, unless too many say so at once.
func (a *API) heartbeat(w http.ResponseWriter, r *http.Request, node db.Standing) (any, error) {
	hb, err := read[nodeapi.Heartbeat](w, r, maxHeartbeat)
	if err != nil {
		return nil, err
	}
	if !a.pace.enter(hb.IsPulse()) {
		return nil, a.overloaded(w)
	}
	defer a.pace.leave()
	answer := nodeapi.HeartbeatResponse{
		Acknowledged: true, NextPollSeconds: a.pace.seconds(), CABundleSHA256: a.ca.BundleSHA256(), Refresh: a.wantsRefresh(r), StateHash: hb.StateHash,
	}
	if hb.IsPulse() {
		answer.WantState, err = a.pulse(r, node, hb.Pulse())
	} else if err = checkHeartbeat(hb); err == nil {
		err = a.db.Heartbeat(r.Context(), db.Sender{NodeID: node.NodeID, CertificateID: node.CertificateID, From: host(r)}, hb)
	}
	if err != nil {
		return nil, err
	}
	if answer.WantState {
		answer.StateHash = ""
	}
	calls, err := a.db.Calls(r.Context(), node.NodeID)
	if err != nil {
		return nil, err
	}
	answer.Reconcile, answer.TasksWaiting = calls.Reconcile, calls.Tasks
	answer.ConfigDigest, err = a.configDigest(r.Context(), node.NodeID)
	answer.ServerTime = a.now().UTC()
	return answer, err
}

// pulse keeps what a node says of itself whose state is what it was, and reports whether it has to say all of it.
func (a *API) pulse(r *http.Request, node db.Standing, p nodeapi.Pulse) (wantState bool, err error) {
	if err := checkPulse(p); err != nil {
		return false, err
	}
	known, err := a.db.Pulse(r.Context(), node.NodeID, p)
	return !known, err
}

// checkPulse refuses what no agent would say.
func checkPulse(p nodeapi.Pulse) error {
	if err := checkText("boot_id", p.BootID, maxWord, true); err != nil {
		return err
	}
	if err := checkText("load_average", p.LoadAverage, maxWord, false); err != nil {
		return err
	}
	if p.StateHash != "" && !isSHA256(p.StateHash) {
		return invalid("state_hash %.80q: want 64 lower-case hexadecimal digits", p.StateHash)
	}
	if p.UptimeSeconds < 0 || p.MemoryFreeKB < 0 {
		return invalid("uptime_seconds and memory_free_kb can't be negative")
	}
	return nil
}

// checkHeartbeat refuses what no agent would say: a node that was taken over is no reason for
// the operator's screen or database to be.
func checkHeartbeat(hb nodeapi.Heartbeat) error {
	if err := checkPulse(hb.Pulse()); err != nil {
		return err
	}
	for _, field := range []struct {
		name, value string
		most        int
		needed      bool
	}{
		{"agent_version", hb.AgentVersion, maxVersion, true},
		{"integrity_level", hb.IntegrityLevel, maxWord, false},
		{"dmi_uuid", hb.Machine.DMIUUID, maxWord, false},
		{"vm_generation_id", hb.Machine.VMGenerationID, maxWord, false},
	} {
		if err := checkText(field.name, field.value, field.most, field.needed); err != nil {
			return err
		}
	}
	if err := checkArchitecture(hb.Architecture, false); err != nil {
		return err
	}
	switch hb.MountState {
	case nodeapi.MountMounted, nodeapi.MountUnmounted, nodeapi.MountTransitioning:
	default:
		return invalid("mount_state %.40q: want mounted, unmounted or transitioning", hb.MountState)
	}
	if hb.RootDigest != "" {
		if _, err := fsverity.ParseDigest(hb.RootDigest); err != nil {
			return invalid("root_digest: %v", err)
		}
	}
	if hb.CABundleSHA256 != "" && !isSHA256(hb.CABundleSHA256) {
		return invalid("ca_bundle_sha256 %.80q: want 64 lower-case hexadecimal digits", hb.CABundleSHA256)
	}
	if hb.ConfigDigest != "" && !isSHA256(hb.ConfigDigest) {
		return invalid("config_digest %.80q: want 64 lower-case hexadecimal digits", hb.ConfigDigest)
	}
	if hb.Generation > math.MaxInt64 {
		return invalid("generation can't be beyond 63 bits")
	}
	if len(hb.Remarks) > nodeapi.MaxRemarks {
		return invalid("more than %d remarks", nodeapi.MaxRemarks)
	}
	for _, remark := range hb.Remarks {
		if err := checkText("a remark", remark, nodeapi.MaxBootText, false); err != nil {
			return err
		}
	}
	if len(hb.ModuleDigests) > maxDigests {
		return invalid("module_digests of more than %d modules", maxDigests)
	}
	for id, digest := range hb.ModuleDigests {
		if err := checkText("an ID in module_digests", id, maxWord, true); err != nil {
			return err
		}
		if !registry.ValidDigest(digest) {
			return invalid("module_digests: %.100q is no digest", digest)
		}
	}
	return nil
}

// checkText refuses a text that is too long or holds anything but printable characters.
func checkText(name, s string, most int, needed bool) error {
	switch {
	case s == "" && needed:
		return refuse(http.StatusBadRequest, nodeapi.CodeParameterMissing, "%s is needed", name)
	case len(s) > most:
		return invalid("%s of more than %d bytes", name, most)
	case strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }):
		return invalid("%s %.100q: want printable characters", name, s)
	}
	return nil
}

func checkArchitecture(s string, mayBeEmpty bool) error {
	if s == "amd64" || s == "arm64" || s == "" && mayBeEmpty {
		return nil
	}
	return invalid("architecture %.40q: want amd64 or arm64", s)
}

// nodeModules lists the modules of the node that asks, the one that wins first.
func (a *API) nodeModules(_ http.ResponseWriter, r *http.Request, node db.Standing) (any, error) {
	// Before the list, so that neither is said of one that it came before.
	number, known, err := a.db.ListNumber(r.Context(), node.NodeID)
	if err != nil {
		return nil, err
	}
	removeMost, err := a.db.RemoveMost(r.Context(), node.NodeID)
	if err != nil {
		return nil, err
	}
	modules, err := a.db.Assigned(r.Context(), node.NodeID)
	if err != nil {
		return nil, err
	}
	list := nodeapi.ModuleList{Modules: []nodeapi.Module{}, Count: len(modules), RemoveMost: removeMost}
	for _, m := range modules {
		list.Modules = append(list.Modules, a.nodeView(m))
	}
	want := a.expected(r.Context(), node.Architecture, modules)
	if want.text != "" {
		a.log.Warn("no root digest for a node's modules", "node", node.NodeID, "reason", want.text)
	}
	if !want.root.Digest.IsZero() {
		list.RootDigest = want.root.Digest.String()
		// Before the node can run it, lest it count as drifted.
		if err := a.db.RootExpected(r.Context(), node.NodeID, list.RootDigest); err != nil {
			return nil, err
		}
	}
	if !known {
		err = a.db.ListRead(r.Context(), node.NodeID, number)
	}
	return list, err
}

// nodeModule shows one of the node's own modules; others don't exist for it.
func (a *API) nodeModule(_ http.ResponseWriter, r *http.Request, node db.Standing) (any, error) {
	modules, err := a.db.Assigned(r.Context(), node.NodeID)
	if err != nil {
		return nil, err
	}
	for _, m := range modules {
		if m.ID == r.PathValue("module") {
			return nodeapi.ModuleDetail{Module: a.nodeView(m)}, nil
		}
	}
	return nil, refuse(http.StatusNotFound, nodeapi.CodeNotFound, "module not found")
}

func (a *API) nodeView(m db.Module) nodeapi.Module {
	return nodeapi.Module{
		ID: m.ID, Name: m.Name, Variety: nodeapi.Variety(m.Variety), Version: m.Version,
		Priority: m.Priority, EffectivePriority: m.EffectivePriority(), RebootRequired: m.RebootRequired,
		Repository: a.registry + "/" + m.Repository, Digest: m.Digest, AllowDowngrade: m.AllowDowngrade,
	}
}

// isNotFound reports whether err says that there is no such thing.
func isNotFound(err error) bool { return errors.Is(err, db.ErrNotFound) }
