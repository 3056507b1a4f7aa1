package operatorapi

// NodeState says whether a node runs what it should.
type NodeState string

// The states.
const (
	// StateInStep runs exactly the expected root, or nothing where nothing is assigned.
	StateInStep NodeState = "in-step"
	// StateBehind runs what was expected of it earlier, or nothing yet.
	StateBehind NodeState = "behind"
	// StateDrifted runs a root that none of its assignments, now or earlier, explains.
	StateDrifted NodeState = "drifted"
	// StateSilent hasn't been heard of within StaleAfter; what it said before doesn't count.
	StateSilent NodeState = "silent"
	// StateUnknown hasn't been heard of at all, or can't be compared.
	StateUnknown NodeState = "unknown"
)

// NodeStates returns every state.
func NodeStates() []NodeState {
	return []NodeState{StateInStep, StateBehind, StateDrifted, StateSilent, StateUnknown}
}

// QueryState is the parameter of GET PathNodes that leaves out nodes in other states.
const QueryState = "state"
