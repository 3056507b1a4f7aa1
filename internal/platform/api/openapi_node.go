package api

import (
	"net/http"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/openapi"
)

// nodeCalls says what the calls of the node_api take and answer, and with which errors of their own. Path has the method before it.
func nodeCalls() []openapi.Call {
	const get, post = http.MethodGet + " ", http.MethodPost + " "
	one := func(v any) []any { return []any{v} }
	noTask := unknown("the node has no such task")
	lost := refused(http.StatusConflict, nodeapi.CodeLeaseLost, "the lease isn't in force: it expired, another took its place, or the task has ended")
	lease := []openapi.Error{missing("lease_id"), unprocessable("a value in the body can't be"), noTask, lost}
	report := append([]openapi.Error{refused(http.StatusUnprocessableEntity, nodeapi.CodeReportRefused, "what is said of the task can't be taken, ever")}, lease...)
	keyUsed := conflicting("the key has had a certificate already")
	tooManyCertificates := refused(http.StatusTooManyRequests, nodeapi.CodeTooManyRequests, "the node had too many certificates of late")
	return []openapi.Call{
		{
			Path: post + nodeapi.PathEnroll, ID: "enroll", Summary: "Exchange a bootstrap token for a certificate",
			Description: "The same token with the same key gives the same certificate again. The token may be in the header X-Bootstrap-Token instead.",
			Requests:    one(nodeapi.EnrollRequest{}), MaxBody: maxEnroll, Answer: nodeapi.EnrollResponse{},
			Errors: []openapi.Error{
				missing("csr_pem"), refused(http.StatusUnauthorized, nodeapi.CodeUnauthorized, "no bootstrap token"),
				refused(http.StatusUnprocessableEntity, nodeapi.CodeTokenRefused, "the bootstrap token is unknown, used by another key, or expired"),
				unprocessable("the certificate request or the architecture can't be"),
			},
		},
		{
			Path: post + nodeapi.PathRefresh, ID: "refreshCertificate", Summary: "Ask for the successor of the certificate in force",
			Requests: one(nodeapi.RefreshRequest{}), MaxBody: maxEnroll, Answer: nodeapi.EnrollResponse{},
			Errors: []openapi.Error{missing("csr_pem"), unprocessable("the certificate request can't be"), keyUsed, tooManyCertificates},
		},
		{
			Path: post + nodeapi.PathRenew, ID: "renewCertificate", Summary: "Ask for a certificate by the key of one that has ended",
			Description: "Needs no certificate: the proof is in the request.",
			Requests:    one(nodeapi.RenewRequest{}), MaxBody: maxEnroll, Answer: nodeapi.RenewResponse{},
			Errors: []openapi.Error{
				missing("each of csr_pem, certificate_pem, signed_at and proof"), unprocessable("the certificate request or the time can't be"), keyUsed,
				tooManyCertificates, refused(http.StatusUnauthorized, nodeapi.CodeUnauthorized, "the certificate isn't the platform's, or the proof not by its key"),
				refused(http.StatusUnauthorized, nodeapi.CodeCertificateRevoked, "the certificate was revoked"),
				refused(http.StatusUnauthorized, nodeapi.CodeNodeInactive, "the node was taken out of service"),
				refused(http.StatusForbidden, nodeapi.CodeRenewalRefused, "the platform's policy, or an operator, said no"),
				refused(http.StatusUnprocessableEntity, nodeapi.CodeProofOutOfTime, "the proof was signed too far from the platform's clock"),
			},
		},
		{
			Path: post + nodeapi.PathTime, ID: "signedTime", Summary: "Get the platform's time, signed by its CA",
			Requests: one(nodeapi.TimeRequest{}), MaxBody: maxTime, Answer: nodeapi.TimeResponse{},
			Errors: []openapi.Error{unprocessable("the nonce isn't 32 bytes")},
		},
		{Path: get + nodeapi.PathCA, ID: "getCABundle", Summary: "Get the authorities that nodes shall trust", Answer: nodeapi.CAResponse{}},
		{
			Path: post + nodeapi.PathClaim, ID: "claim", Summary: "Ask to become a node, without a token",
			Description: "A machine asks again until an operator has accepted or rejected the code that it shows.",
			Requests:    one(nodeapi.ClaimRequest{}), MaxBody: maxClaim, Answer: nodeapi.ClaimResponse{},
			Errors: []openapi.Error{missing("mac"), unprocessable("the claim's key isn't 32 bytes")},
		},
		{
			Path: post + nodeapi.PathHeartbeat, ID: "heartbeat", Summary: "Say how the node is",
			Description: "A pulse is enough while the node's state is the one whose hash the platform has named.",
			Requests:    []any{nodeapi.Heartbeat{}, nodeapi.Pulse{}}, MaxBody: maxHeartbeat, Answer: nodeapi.HeartbeatResponse{},
			Errors: []openapi.Error{
				missing("each of boot_id and agent_version"), unprocessable("a value in the heartbeat can't be"),
				refused(http.StatusTooManyRequests, nodeapi.CodeTooManyRequests, "the platform has too many heartbeats under way"),
			},
		},
		{
			Path: post + nodeapi.PathBootReports, ID: "reportBoot", Summary: "Say how a boot went",
			Requests: one(nodeapi.BootReport{}), MaxBody: nodeapi.MaxBootReport, Answer: nodeapi.BootReportResponse{},
			Errors: []openapi.Error{missing("each of boot_id and agent_version"), unprocessable("a value in the report can't be")},
		},
		{
			Path: post + nodeapi.PathTaskLease, ID: "leaseTasks", Summary: "Get tasks, and wait for some where there are none",
			Requests: one(nodeapi.LeaseRequest{}), MaxBody: maxLeaseRequest, Answer: nodeapi.LeaseResponse{},
			Errors: []openapi.Error{
				unprocessable("a value in the body can't be"), refused(http.StatusTooManyRequests, nodeapi.CodeTooManyRequests, "the node has too many such calls under way"),
			},
		},
		{
			Path: post + nodeapi.PathTaskRenew, ID: "renewTask", Summary: "Keep a lease in force",
			Requests: one(nodeapi.RenewTask{}), MaxBody: maxLeaseRequest, Answer: nodeapi.TaskStanding{}, Errors: lease,
		},
		{
			Path: post + nodeapi.PathTaskProgress, ID: "progressTask", Summary: "Say how far a task is, and keep its lease in force",
			Requests: one(nodeapi.TaskProgress{}), MaxBody: maxProgress, Answer: nodeapi.TaskStanding{}, Errors: report,
		},
		{
			Path: post + nodeapi.PathTaskComplete, ID: "completeTask", Summary: "End a task that was done",
			Description: "The same end by the same lease is acknowledged again.",
			Requests:    one(nodeapi.CompleteTask{}), MaxBody: maxTaskEnd, Answer: nodeapi.TaskEnd{}, Errors: report,
		},
		{
			Path: post + nodeapi.PathTaskFail, ID: "failTask", Summary: "End a task that wasn't done",
			Description: "The same end by the same lease is acknowledged again.",
			Requests:    one(nodeapi.FailTask{}), MaxBody: maxTaskEnd, Answer: nodeapi.TaskEnd{},
			Errors: report,
		},
		{
			Path: post + nodeapi.PathEvents, ID: "tellEvents", Summary: "Tell what happened on the node",
			Description: "An event that was told before, by its ID, counts once.",
			Requests:    one(nodeapi.EventsRequest{}), MaxBody: maxEvents, Answer: nodeapi.EventsResponse{},
			Errors: []openapi.Error{
				refused(http.StatusUnprocessableEntity, nodeapi.CodeEventRefused, "one of the events can't be taken, ever"), unprocessable("there are too many events"),
			},
		},
		{Path: get + nodeapi.PathConfig, ID: "getConfig", Summary: "Get what is set of the node beside its modules", Answer: nodeapi.NodeConfig{}},
		{
			Path: get + nodeapi.PathAuthorizedKeys, ID: "getAuthorizedKeys", Summary: "Get the keys of one user, as the existing platform tells them",
			Answer: nodeapi.AuthorizedKeys{}, Errors: []openapi.Error{unknown("no keys are set for the node")},
		},
		{
			Path: get + nodeapi.PathRegistryAccess, ID: "getRegistryAccess", Summary: "Get what opens the repository of one of the node's modules",
			Description: "For registries other than the platform's own, which knows nodes by their certificates. What comes is for that repository's host alone, " +
				"and kept in memory only. Without a token and a user, there is nothing that the platform could give.",
			Query: []openapi.Parameter{{Name: nodeapi.QueryRepository, Type: "", Needed: true, Description: "The repository as the module names it, with its host."}}, Answer: nodeapi.RegistryAccess{},
			Errors: []openapi.Error{missing("repository"), unknown("no module of the node lies there, or not in a registry that the platform has something for"), unprocessable("the registry knows passwords only, and there is none for nodes")},
		},
		{Path: get + nodeapi.PathModules, ID: "getModules", Summary: "Get the node's modules, the one that wins first", Answer: nodeapi.ModuleList{}},
		{
			Path: get + nodeapi.PathModules + "/{module}", ID: "getModule", Summary: "Get one of the node's modules", Answer: nodeapi.ModuleDetail{},
			Errors: []openapi.Error{unknown("the node has no such module")},
		},
		{
			Path: get + PathOpenAPI, ID: "getOpenAPI", Summary: "Get this document", Plain: true,
			Headers: []openapi.Header{{Name: "ETag", Description: "Names this text, for If-None-Match."}},
		},
	}
}
