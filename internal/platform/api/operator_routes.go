package api

import (
	"net/http"

	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// OperatorRoute is one call of the operator API.
type OperatorRoute struct {
	Method, Path string
	// Role is the role that it needs.
	Role operatorapi.Role
	// Action is what the audit log calls it; "" of one that changes nothing.
	Action string

	serve func(a *API, w http.ResponseWriter, r *http.Request) (any, error)
}

// OperatorRoutes returns every call of the operator API.
func OperatorRoutes() []OperatorRoute { return operatorRoutes() }

// operatorRoutes is the one place that says which role a call needs. Who decides what machines are nodes, which certificates count, who
// may log in on a node or speak as an operator is an admin; who decides what nodes run deploys; and whoever only looks reads.
func operatorRoutes() []OperatorRoute {
	const (
		get, post, del      = http.MethodGet, http.MethodPost, http.MethodDelete
		read, deploy, admin = operatorapi.RoleRead, operatorapi.RoleDeploy, operatorapi.RoleAdmin
	)
	return []OperatorRoute{
		{get, operatorapi.PathInfo, read, "", (*API).info},
		{get, operatorapi.PathNodes, read, "", (*API).listNodes},
		{post, operatorapi.PathNodes, admin, "node.create", (*API).createNode},
		{get, operatorapi.PathNode, read, "", (*API).showNode},
		{post, operatorapi.PathTokens, admin, "token.create", (*API).createToken},
		{post, operatorapi.PathRevoke, admin, "node.revoke", (*API).revokeNode},
		{post, operatorapi.PathApprove, admin, "node.approve", (*API).approveNode},
		{get, operatorapi.PathUnfiled, read, "", (*API).listUnfiled},
		{post, operatorapi.PathUnfiled, admin, "renewal.approve-unfiled", (*API).approveUnfiled},
		{get, operatorapi.PathAssignments, read, "", (*API).listAssignments},
		{post, operatorapi.PathAssignments, deploy, "module.assign", (*API).assign},
		{del, operatorapi.PathAssignment, deploy, "module.unassign", (*API).unassign},
		{get, operatorapi.PathNodeConfig, read, "", (*API).showConfig},
		{post, operatorapi.PathNodeConfig, admin, "node.configure", (*API).changeConfig},
		{get, operatorapi.PathModules, read, "", (*API).listModules},
		{post, operatorapi.PathModules, deploy, "module.register", (*API).registerModule},
		{get, operatorapi.PathModule, read, "", (*API).showModule},
		{get, operatorapi.PathCA, read, "", (*API).listCA},
		{post, operatorapi.PathCAPrepare, admin, "ca.prepare", (*API).prepareCA},
		{post, operatorapi.PathCAActivate, admin, "ca.activate", (*API).activateCA},
		{post, operatorapi.PathCARetire, admin, "ca.retire", (*API).retireCA},
		{get, operatorapi.PathEvents, read, "", (*API).listEvents},
		{get, operatorapi.PathClaims, read, "", (*API).listClaims},
		{post, operatorapi.PathClaimAccept, admin, "claim.accept", (*API).acceptClaim},
		{post, operatorapi.PathClaimReject, admin, "claim.reject", (*API).rejectClaim},
		{get, operatorapi.PathTasks, read, "", (*API).listTasks},
		{post, operatorapi.PathNodeTasks, deploy, "task.create", (*API).createTask},
		{get, operatorapi.PathTask, read, "", (*API).showTask},
		{post, operatorapi.PathTaskCancel, deploy, "task.cancel", (*API).cancelTask},
		{get, operatorapi.PathNodeEvents, read, "", (*API).listNodeEvents},
		{get, operatorapi.PathOperators, admin, "", (*API).listOperators},
		{post, operatorapi.PathOperators, admin, "operator.create", (*API).createOperator},
		{del, operatorapi.PathOperator, admin, "operator.revoke", (*API).revokeOperator},
		{get, operatorapi.PathAudit, admin, "", (*API).listAudit},
	}
}
