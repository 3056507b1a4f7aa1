package api

import (
	"net/http"

	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/openapi"
)

// operatorCalls says what the calls of the operator API take and answer, and with which errors of their own. Path has the method before
// it.
func operatorCalls() []openapi.Call {
	const get, post, del = http.MethodGet + " ", http.MethodPost + " ", http.MethodDelete + " "
	one := func(v any) []any { return []any{v} }
	list := func(errs ...openapi.Error) []openapi.Error { return errs }
	limit := openapi.Parameter{Name: operatorapi.QueryLimit, Type: int64(0), Rule: openapi.Rule{Bounds: &openapi.Bounds{Least: 1, Most: operatorapi.MaxListed}}, Description: "How many are wanted."}
	node := openapi.Parameter{Name: operatorapi.QueryNode, Type: "", Description: "A node's ID or name; without it all nodes are meant."}
	flag := openapi.Rule{Enum: []string{"true"}}
	noQueryNode, badQuery := unknown("there is no such node"), unprocessable("a parameter can't be")
	noModule, noTask := unknown("there is no such module"), unknown("there is no such task")
	return []openapi.Call{
		{Path: get + operatorapi.PathInfo, ID: "getInfo", Summary: "Get whom the caller is talking to", Answer: operatorapi.Info{}},
		{
			Path: get + operatorapi.PathNodes, ID: "listNodes", Summary: "List nodes", Answer: operatorapi.NodeList{}, Errors: list(badQuery),
			Query: []openapi.Parameter{{Name: operatorapi.QueryState, Type: operatorapi.NodeState(""), Description: "Leaves out nodes in other states."}},
		},
		{
			Path: post + operatorapi.PathNodes, ID: "createNode", Summary: "Make a node", Requests: one(operatorapi.NodeCreate{}), Answer: operatorapi.Node{},
			Errors: list(unprocessable("the name or the architecture can't be"), conflicting("the name is taken")),
		},
		{Path: get + operatorapi.PathNode, ID: "getNode", Summary: "Get a node with what belongs to it", Answer: operatorapi.NodeDetail{}},
		{
			Path: post + operatorapi.PathTokens, ID: "createToken", Summary: "Make a bootstrap token", Requests: one(operatorapi.TokenCreate{}), Answer: operatorapi.Token{},
			Errors: list(unprocessable("the token's life can't be")),
		},
		{
			Path: post + operatorapi.PathRevoke, ID: "revokeNode", Summary: "End a node's certificates, or one of them", Requests: one(operatorapi.RevokeRequest{}),
			Answer: operatorapi.RevokeResult{}, Errors: list(unknown("there is no such node, or it has no such certificate")),
		},
		{
			Path: post + operatorapi.PathApprove, ID: "approveNode", Summary: "Approve or deny a renewal, or clear a doubt about the identity",
			Requests: one(operatorapi.ApproveRequest{}), Answer: operatorapi.ApproveResult{},
			Errors: list(unprocessable("the words don't go together, or name no renewal"), conflicting("nothing waits, or which is meant isn't clear")),
		},
		{
			Path: get + operatorapi.PathUnfiled, ID: "listUnfiled", Answer: operatorapi.UnfiledList{},
			Summary: "List what waits by certificates that a restored database had lost",
		},
		{
			Path: post + operatorapi.PathUnfiled, ID: "approveUnfiled", Answer: operatorapi.UnfiledList{},
			Summary: "Approve what waits by certificates that a restored database had lost",
		},
		{Path: get + operatorapi.PathAssignments, ID: "listAssignments", Summary: "List a node's modules", Answer: operatorapi.AssignmentList{}},
		{
			Path: post + operatorapi.PathAssignments, ID: "assignModule", Summary: "Assign a module to a node", Requests: one(operatorapi.AssignmentCreate{}),
			Answer: operatorapi.AssignmentList{}, Errors: list(unknown("there is no such node, or no such module"), unprocessable("the module isn't for the node's architecture")),
		},
		{
			Path: del + operatorapi.PathAssignment, ID: "unassignModule", Summary: "Take a module from a node", Answer: operatorapi.AssignmentList{},
			Query:  []openapi.Parameter{{Name: operatorapi.RemoveMost, Type: "", Rule: flag, Description: "The node may lose most of its modules; it is no error that the module isn't assigned."}},
			Errors: list(badQuery, unknown("there is no such node or module, or it isn't assigned")),
		},
		{Path: get + operatorapi.PathNodeConfig, ID: "getNodeConfig", Summary: "Get what is set of a node beside its modules", Answer: operatorapi.NodeConfig{}},
		{
			Path: post + operatorapi.PathNodeConfig, ID: "changeNodeConfig", Summary: "Change what is set of a node beside its modules", Description: "What is left out stays.",
			Requests: one(operatorapi.NodeConfigChange{}), MaxBody: operatorapi.MaxConfigChange, Answer: operatorapi.NodeConfig{},
			Errors: list(unprocessable("a value can't be, and nothing was changed")),
		},
		{Path: get + operatorapi.PathModules, ID: "listModules", Summary: "List modules", Answer: operatorapi.ModuleList{}},
		{
			Path: post + operatorapi.PathModules, ID: "registerModule", Summary: "Register a version of a module that was pushed", Requests: one(operatorapi.ModuleRegister{}),
			Answer: operatorapi.Module{},
			Errors: list(unprocessable("a value can't be, or the registry doesn't hold the image"), conflicting("the version is taken by another content"),
				refused(http.StatusUnprocessableEntity, operatorapi.CodeSealRefused, "the seal, the annotations or the manifest don't fit the content")),
		},
		{Path: get + operatorapi.PathModule, ID: "showModule", Summary: "Get a module in its current version", Answer: operatorapi.Module{}, Errors: list(noModule)},
		{Path: get + operatorapi.PathCA, ID: "listCA", Summary: "List the authorities, and the nodes that aren't done with the old one", Answer: operatorapi.CAList{}},
		{
			Path: post + operatorapi.PathCAPrepare, ID: "prepareCA", Summary: "Make the next authority", Requests: one(operatorapi.CAPrepare{}), Answer: operatorapi.CAList{},
			Errors: list(unprocessable("one is prepared already, or can't be taken up")),
		},
		{
			Path: post + operatorapi.PathCAActivate, ID: "activateCA", Summary: "Have the next authority sign", Answer: operatorapi.CAList{},
			Errors: list(unprocessable("none is prepared")),
		},
		{
			Path: post + operatorapi.PathCARetire, ID: "retireCA", Summary: "End an authority", Requests: one(operatorapi.CARetire{}), Answer: operatorapi.CAList{},
			Errors: list(unprocessable("there is none to retire"), conflicting("nodes still need it")),
		},
		{Path: get + operatorapi.PathEvents, ID: "listEvents", Summary: "List the latest events", Answer: operatorapi.EventList{}},
		{Path: get + operatorapi.PathClaims, ID: "listClaims", Summary: "List machines that ask to be claimed", Answer: operatorapi.ClaimList{}},
		{
			Path: post + operatorapi.PathClaimAccept, ID: "acceptClaim", Summary: "Make a machine a node", Description: "Doing it again changes nothing.",
			Requests: one(operatorapi.ClaimAccept{}), Answer: operatorapi.Claim{},
			Errors: list(unprocessable("the code or the name can't be, or the node is of another architecture"), unknown("there is no such claim, or no such node"),
				conflicting("the claim was decided otherwise, or the node is running, out of service, or there already")),
		},
		{
			Path: post + operatorapi.PathClaimReject, ID: "rejectClaim", Summary: "Refuse a machine", Answer: operatorapi.Claim{},
			Errors: list(unprocessable("the code can't be"), unknown("there is no such claim"), conflicting("the machine is enrolled already")),
		},
		{
			Path: get + operatorapi.PathTasks, ID: "listTasks", Summary: "List tasks, the newest first", Answer: operatorapi.TaskList{}, Errors: list(badQuery, noQueryNode),
			Query: []openapi.Parameter{node, limit, {Name: operatorapi.QueryOpen, Type: "", Rule: flag, Description: "Leaves out tasks that have ended."}},
		},
		{
			Path: post + operatorapi.PathNodeTasks, ID: "createTask", Summary: "Ask a node for something", Requests: one(operatorapi.TaskCreate{}), MaxBody: maxTaskCreate,
			Answer: operatorapi.Task{}, Description: "The same `id` again, with the same content, makes no second task. One that its node hasn't come for in time fails with the code EXPIRED.",
			Errors: list(missing("the name of each module"), unprocessable("the kind, its options or the time can't be"), conflicting("the ID is another task's, or too many tasks haven't ended")),
		},
		{Path: get + operatorapi.PathTask, ID: "getTask", Summary: "Get a task with result and output", Answer: operatorapi.TaskDetail{}, Errors: list(noTask)},
		{
			Path: post + operatorapi.PathTaskCancel, ID: "cancelTask", Summary: "Ask for the end of a task", Description: "One that has ended stays as it is.",
			Answer: operatorapi.Task{}, Errors: list(noTask),
		},
		{
			Path: get + operatorapi.PathNodeEvents, ID: "listNodeEvents", Summary: "List what nodes told, the newest first", Answer: operatorapi.NodeEventList{},
			Query: []openapi.Parameter{node, limit}, Errors: list(badQuery, noQueryNode),
		},
		{Path: get + operatorapi.PathOperators, ID: "listOperators", Summary: "List operators' tokens", Answer: operatorapi.OperatorList{}},
		{
			Path: post + operatorapi.PathOperators, ID: "createOperator", Summary: "Make an operator's token", Requests: one(operatorapi.OperatorCreate{}),
			Answer: operatorapi.OperatorToken{}, Errors: list(unprocessable("the name or the role can't be"), conflicting("the name is taken, or there are too many")),
		},
		{
			Path: del + operatorapi.PathOperator, ID: "revokeOperator", Summary: "End an operator's token", Answer: operatorapi.OperatorList{},
			Errors: list(unknown("there is no such token"), conflicting("it is the platform's first")),
		},
		{
			Path: get + operatorapi.PathAudit, ID: "listAudit", Summary: "List what operators changed, the newest first", Answer: operatorapi.AuditList{}, Errors: list(badQuery),
			Query: []openapi.Parameter{
				{Name: operatorapi.QueryBy, Type: "", Description: "The name of the token whose entries are wanted."},
				{Name: operatorapi.QueryBefore, Type: int64(0), Rule: openapi.Rule{Bounds: &openapi.Bounds{Least: 1}}, Description: "The ID before which to go on."},
				limit,
			},
		},
	}
}
