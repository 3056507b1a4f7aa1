package reconcile

import (
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
)

// Origin says by whose word a module is wanted.
type Origin string

// The origins.
const (
	ByPlatform Origin = "platform"
	// Here is the node's own administrator. Such a module has no ID.
	Here Origin = "local"
)

// Assigned is a module that the node is to run.
type Assigned struct {
	nodeapi.Module
	Origin Origin
	// Refused is why it can't be used although it is wanted; nil where nothing is known against it.
	Refused error
}

// AsAssigned returns a platform's list as it is.
func AsAssigned(list *nodeapi.ModuleList) []Assigned {
	all := make([]Assigned, len(list.Modules))
	for i, m := range list.Modules {
		all[i] = Assigned{Module: m, Origin: ByPlatform}
	}
	return all
}

// check refuses what can't be a module.
func (a Assigned) check() error {
	if a.Refused != nil {
		return a.Refused
	}
	m := a.Module
	if a.Origin == Here && m.ID == "" {
		m.ID = "local" // what the platform never assigned has none
	}
	return nodeclient.CheckModule(m)
}
