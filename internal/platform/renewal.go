package platform

import "github.com/powernode/powernode-agent/internal/platform/api"

// DefaultRenewPolicy is the text of the policy of Options.RenewExpired's zero value.
const DefaultRenewPolicy = api.DefaultRenewPolicy

// ParseRenewPolicy reads what becomes of nodes whose certificate expired while they were off: "always",
// "never", "approval", or "<N>d": by itself within N days, by an operator's approval after that.
func ParseRenewPolicy(s string) (api.RenewPolicy, error) { return api.ParseRenewPolicy(s) }
