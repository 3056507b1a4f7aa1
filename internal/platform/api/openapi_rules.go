package api

import (
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/openapi"
)

// neededFields are the fields without which a request is refused.
func neededFields() openapi.Needed {
	return openapi.Needed{
		"nodeapi.EnrollRequest": {"csr_pem"}, "nodeapi.RefreshRequest": {"csr_pem"}, "nodeapi.RenewRequest": {"csr_pem", "certificate_pem", "signed_at", "proof"},
		"nodeapi.TimeRequest": {"nonce"}, "nodeapi.ClaimRequest": {"mac"},
		"nodeapi.Heartbeat": {"boot_id", "agent_version", "architecture", "mount_state"}, "nodeapi.Pulse": {"boot_id", "state_hash"},
		"nodeapi.BootReport": {"boot_id", "agent_version", "outcome"}, "nodeapi.BootStage": {"name"}, "nodeapi.BootTrial": {"verdict"},
		"nodeapi.RenewTask": {"lease_id"}, "nodeapi.TaskProgress": {"lease_id"}, "nodeapi.CompleteTask": {"lease_id"}, "nodeapi.FailTask": {"lease_id", "error", "code"},
		"nodeapi.Event":          {"id", "at", "kind", "severity", "text"},
		"operatorapi.NodeCreate": {"name"}, "operatorapi.AssignmentCreate": {"module"}, "operatorapi.ModuleRegister": {"repository", "digest"},
		"operatorapi.TaskCreate": {"kind"}, "operatorapi.OperatorCreate": {"name", "role"}, "operatorapi.HostEntry": {"address", "names"}, "operatorapi.UserKeys": {"name"},
	}
}

// wireRules say what the types of the wire don't say of the values.
func wireRules() openapi.Rules {
	type rule = openapi.Rule
	within := func(least, most int64) rule { return rule{Bounds: &openapi.Bounds{Least: least, Most: most}} }
	form := func(pattern string) rule { return rule{Pattern: pattern} }
	as := func(name string) rule { return rule{As: name} }
	const most63 = 1<<63 - 1
	hex64, digest, uuid := form("^[0-9a-f]{64}$"), form("^sha256:[0-9a-f]{64}$"), form(looksID.String())
	leaseID := form(leaseForm.String())
	texts := func(count, each int64) rule {
		return rule{Bounds: &openapi.Bounds{Most: count}, Each: &rule{Bounds: &openapi.Bounds{Most: each}}}
	}
	architecture := rule{Enum: []string{"amd64", "arm64"}}
	positive, boot, word, text := within(0, 0), within(1, nodeapi.MaxBootWord), within(0, maxWord), within(0, nodeapi.MaxBootText)
	node := rule{Pattern: nodeName.String(), Bounds: &openapi.Bounds{Least: 1, Most: operatorapi.MaxNameLength}}
	return openapi.Rules{
		"nodeapi.FailCode":                           {Open: true, Pattern: failCodeForm.String()},
		"nodeapi.EnrollRequest.architecture":         architecture,
		"nodeapi.EnrollRequest.bootstrap_token":      within(0, maxToken),
		"nodeapi.RenewRequest.signed_at":             {Format: "date-time", Bounds: &openapi.Bounds{Least: 1, Most: maxTimeText}},
		"nodeapi.TimeRequest.nonce":                  hex64,
		"nodeapi.TimeResponse.nonce":                 hex64,
		"nodeapi.TimeResponse.server_time":           {Format: "date-time"},
		"nodeapi.TimeResponse.ca_bundle_sha256":      hex64,
		"nodeapi.CAResponse.bundle_sha256":           hex64,
		"nodeapi.ClaimRequest.claim_key":             hex64,
		"nodeapi.ClaimResponse.claim_code":           form("^[" + nodeapi.ClaimAlphabet + "]{8}$"),
		"nodeapi.Machine.dmi_uuid":                   word,
		"nodeapi.Machine.vm_generation_id":           word,
		"nodeapi.Heartbeat.boot_id":                  within(1, maxWord),
		"nodeapi.Heartbeat.agent_version":            within(1, maxVersion),
		"nodeapi.Heartbeat.architecture":             architecture,
		"nodeapi.Heartbeat.uptime_seconds":           positive,
		"nodeapi.Heartbeat.module_digests":           {Bounds: &openapi.Bounds{Most: maxDigests}, Each: &digest, Null: true},
		"nodeapi.Heartbeat.load_average":             word,
		"nodeapi.Heartbeat.memory_free_kb":           positive,
		"nodeapi.Heartbeat.root_digest":              hex64,
		"nodeapi.Heartbeat.integrity_level":          word,
		"nodeapi.Heartbeat.generation":               within(0, most63),
		"nodeapi.Heartbeat.remarks":                  texts(nodeapi.MaxRemarks, nodeapi.MaxBootText),
		"nodeapi.Heartbeat.ca_bundle_sha256":         hex64,
		"nodeapi.Heartbeat.config_digest":            hex64,
		"nodeapi.Heartbeat.state_hash":               hex64,
		"nodeapi.Pulse.boot_id":                      within(1, maxWord),
		"nodeapi.Pulse.uptime_seconds":               positive,
		"nodeapi.Pulse.load_average":                 word,
		"nodeapi.Pulse.memory_free_kb":               positive,
		"nodeapi.Pulse.state_hash":                   hex64,
		"nodeapi.HeartbeatResponse.ca_bundle_sha256": hex64,
		"nodeapi.HeartbeatResponse.config_digest":    hex64,
		"nodeapi.HeartbeatResponse.state_hash":       hex64,
		"nodeapi.BootReport.boot_id":                 boot,
		"nodeapi.BootReport.agent_version":           within(1, maxVersion),
		"nodeapi.BootReport.number":                  within(0, most63),
		"nodeapi.BootReport.mode":                    within(0, nodeapi.MaxBootWord),
		"nodeapi.BootReport.started_ms":              positive,
		"nodeapi.BootReport.ended_ms":                positive,
		"nodeapi.BootReport.stage":                   within(0, nodeapi.MaxBootWord),
		"nodeapi.BootReport.failure":                 text,
		"nodeapi.BootReport.generation":              within(0, most63),
		"nodeapi.BootReport.root_digest":             hex64,
		"nodeapi.BootReport.integrity_level":         within(0, nodeapi.MaxBootWord),
		"nodeapi.BootReport.stages":                  {Bounds: &openapi.Bounds{Most: nodeapi.MaxBootStages}, Null: true},
		"nodeapi.BootReport.remarks":                 texts(nodeapi.MaxBootRemarks, nodeapi.MaxBootText),
		"nodeapi.BootStage.name":                     boot,
		"nodeapi.BootStage.begun_ms":                 positive,
		"nodeapi.BootStage.duration_ms":              positive,
		"nodeapi.BootStage.result":                   text,
		"nodeapi.BootStage.error":                    text,
		"nodeapi.BootTrial.generation":               within(0, most63),
		"nodeapi.BootTrial.attempts":                 positive,
		"nodeapi.BootTrial.limit":                    positive,
		"nodeapi.BootTrial.reason":                   text,
		"nodeapi.LeaseRequest.max":                   within(0, nodeapi.MaxLeased),
		"nodeapi.LeaseRequest.wait_seconds":          positive,
		"nodeapi.LeaseRequest.holding":               {Bounds: &openapi.Bounds{Most: nodeapi.MaxHolding}, Null: true},
		"nodeapi.LeasedTask.lease_id":                leaseID,
		"nodeapi.LeasedTask.attempt":                 within(1, 0),
		"nodeapi.RenewTask.lease_id":                 leaseID,
		"nodeapi.TaskProgress.lease_id":              leaseID,
		"nodeapi.TaskProgress.percent":               within(0, 100),
		"nodeapi.TaskProgress.message":               within(0, nodeapi.MaxTaskMessage),
		"nodeapi.TaskProgress.output":                within(0, nodeapi.MaxOutputChunk),
		"nodeapi.TaskProgress.output_offset":         within(0, maxOutputOffset),
		"nodeapi.CompleteTask.lease_id":              leaseID,
		"nodeapi.FailTask.lease_id":                  leaseID,
		"nodeapi.FailTask.error":                     within(1, nodeapi.MaxTaskMessage),
		"nodeapi.Event.id":                           uuid,
		"nodeapi.Event.kind":                         {Pattern: eventKindForm.String(), Bounds: &openapi.Bounds{Least: 1, Most: nodeapi.MaxEventKind}},
		"nodeapi.Event.text":                         within(1, nodeapi.MaxEventText),
		"nodeapi.Event.fields":                       texts(nodeapi.MaxEventFields, nodeapi.MaxEventFieldValue),
		"nodeapi.EventsRequest.events":               within(0, nodeapi.MaxEvents),
		"nodeapi.NodeConfig.digest":                  hex64,
		"nodeapi.Module.digest":                      digest,
		"nodeapi.ModuleList.root_digest":             hex64,

		"operatorapi.NodeCreate.name":                  node,
		"operatorapi.NodeCreate.architecture":          architecture,
		"operatorapi.TokenCreate.ttl_seconds":          within(0, int64(operatorapi.MaxTokenTTL/time.Second)),
		"operatorapi.HostEntry.names":                  {Bounds: &openapi.Bounds{Least: 1, Most: nodeapi.MaxHostNames}},
		"operatorapi.UserKeys.authorized_keys":         texts(nodeapi.MaxUserKeys, nodeapi.MaxKeyLine),
		"operatorapi.NodeConfigChange.hosts":           within(0, nodeapi.MaxHosts),
		"operatorapi.NodeConfigChange.users":           within(0, nodeapi.MaxConfigUsers),
		"operatorapi.ModuleRegister.digest":            digest,
		"operatorapi.ModuleRegister.variety":           as("nodeapi.Variety"),
		"operatorapi.ModuleRegister.category_position": within(0, operatorapi.MaxCategoryPosition),
		"operatorapi.ModuleRegister.priority":          within(0, operatorapi.MaxPriority),
		"operatorapi.TaskCreate.id":                    uuid,
		"operatorapi.TaskCreate.deadline_seconds":      within(0, int64(operatorapi.MaxTaskDeadline/time.Second)),
		"operatorapi.TaskCreate.expires_in_seconds":    within(0, int64(operatorapi.MaxTaskLife/time.Second)),
		"operatorapi.OperatorCreate.name":              form(operatorName.String()),
		"operatorapi.ClaimAccept.create":               node,
		"operatorapi.Claim.code":                       form("^[" + nodeapi.ClaimAlphabet + "]{4}-[" + nodeapi.ClaimAlphabet + "]{4}$"),
		"operatorapi.Module.variety":                   as("nodeapi.Variety"),
		"operatorapi.Module.digest":                    digest,
		"operatorapi.Image.architecture":               architecture,
		"operatorapi.Image.manifest_digest":            digest,
		"operatorapi.Report.mount_state":               as("nodeapi.MountState"),
		"operatorapi.Report.module_digests":            {Null: true},
		"operatorapi.Boot.outcome":                     as("nodeapi.BootOutcome"),
		"operatorapi.BootTrial.verdict":                as("nodeapi.TrialVerdict"),
		"operatorapi.Certificate.origin":               {Enum: []string{"enroll", "refresh", "renew"}},
		"operatorapi.Renewal.reason":                   {Enum: []string{"expired", "superseded"}},
		"operatorapi.Renewal.state":                    {Enum: []string{"waiting", "approved", "denied"}},
		"operatorapi.Task.kind":                        as("nodeapi.TaskKind"),
		"operatorapi.Task.state":                       as("nodeapi.TaskState"),
		"operatorapi.Task.code":                        form(failCodeForm.String()),
		"operatorapi.NodeEvent.severity":               as("nodeapi.Severity"),
		"operatorapi.Authority.sha256":                 hex64,
		"operatorapi.CAList.bundle_sha256":             hex64,
		"operatorapi.NodeConfig.digest":                hex64,
	}
}
