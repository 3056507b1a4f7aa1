package platform_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/oracle"
)

// TestProtocolExamples decodes each example of docs/protocol.md into the struct that it is of, and
// refuses fields that the struct doesn't have.
func TestProtocolExamples(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(oracle.Root(t), "docs", "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	structs := map[string]func() any{
		"nodeapi.Envelope":             func() any { return new(nodeapi.Envelope) },
		"nodeapi.EnrollRequest":        func() any { return new(nodeapi.EnrollRequest) },
		"nodeapi.EnrollResponse":       func() any { return new(nodeapi.EnrollResponse) },
		"nodeapi.RefreshRequest":       func() any { return new(nodeapi.RefreshRequest) },
		"nodeapi.RenewRequest":         func() any { return new(nodeapi.RenewRequest) },
		"nodeapi.RenewResponse":        func() any { return new(nodeapi.RenewResponse) },
		"nodeapi.TimeRequest":          func() any { return new(nodeapi.TimeRequest) },
		"nodeapi.TimeResponse":         func() any { return new(nodeapi.TimeResponse) },
		"nodeapi.CAResponse":           func() any { return new(nodeapi.CAResponse) },
		"nodeapi.ClaimRequest":         func() any { return new(nodeapi.ClaimRequest) },
		"nodeapi.ClaimResponse":        func() any { return new(nodeapi.ClaimResponse) },
		"operatorapi.ClaimAccept":      func() any { return new(operatorapi.ClaimAccept) },
		"nodeapi.Heartbeat":            func() any { return new(nodeapi.Heartbeat) },
		"nodeapi.Pulse":                func() any { return new(nodeapi.Pulse) },
		"nodeapi.LeaseRequest":         func() any { return new(nodeapi.LeaseRequest) },
		"nodeapi.LeaseResponse":        func() any { return new(nodeapi.LeaseResponse) },
		"nodeapi.RenewTask":            func() any { return new(nodeapi.RenewTask) },
		"nodeapi.TaskProgress":         func() any { return new(nodeapi.TaskProgress) },
		"nodeapi.TaskStanding":         func() any { return new(nodeapi.TaskStanding) },
		"nodeapi.CompleteTask":         func() any { return new(nodeapi.CompleteTask) },
		"nodeapi.FailTask":             func() any { return new(nodeapi.FailTask) },
		"nodeapi.TaskEnd":              func() any { return new(nodeapi.TaskEnd) },
		"nodeapi.EventsRequest":        func() any { return new(nodeapi.EventsRequest) },
		"nodeapi.EventsResponse":       func() any { return new(nodeapi.EventsResponse) },
		"operatorapi.TaskCreate":       func() any { return new(operatorapi.TaskCreate) },
		"nodeapi.HeartbeatResponse":    func() any { return new(nodeapi.HeartbeatResponse) },
		"nodeapi.BootReport":           func() any { return new(nodeapi.BootReport) },
		"nodeapi.BootReportResponse":   func() any { return new(nodeapi.BootReportResponse) },
		"nodeapi.ModuleList":           func() any { return new(nodeapi.ModuleList) },
		"nodeapi.ModuleDetail":         func() any { return new(nodeapi.ModuleDetail) },
		"nodeapi.NodeConfig":           func() any { return new(nodeapi.NodeConfig) },
		"nodeapi.AuthorizedKeys":       func() any { return new(nodeapi.AuthorizedKeys) },
		"operatorapi.NodeConfigChange": func() any { return new(operatorapi.NodeConfigChange) },
		"operatorapi.ModuleRegister":   func() any { return new(operatorapi.ModuleRegister) },
		"operatorapi.OperatorCreate":   func() any { return new(operatorapi.OperatorCreate) },
		"operatorapi.AuditEntry":       func() any { return new(operatorapi.AuditEntry) },
	}
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile("(?s)<!-- (\\S+) -->\n```json\n(.*?)```").FindAllSubmatch(text, -1) {
		name := string(m[1])
		newStruct, ok := structs[name]
		if !ok {
			t.Errorf("an example of %s, which the test doesn't know", name)
			continue
		}
		seen[name] = true
		if err := durable.DecodeJSON(m[2], newStruct()); err != nil {
			t.Errorf("example of %s: %v\n%s", name, err, m[2])
		}
	}
	for name := range structs {
		if !seen[name] {
			t.Errorf("no example of %s", name)
		}
	}
}
