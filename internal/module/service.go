package module

// RestartPolicy says when a service that ended is started again.
type RestartPolicy string

// The restart policies; Always is the default.
const (
	RestartNever     RestartPolicy = "never"
	RestartOnFailure RestartPolicy = "on-failure"
	RestartAlways    RestartPolicy = "always"
)

// Service is one long-running program of a module.
type Service struct {
	Name          string        `json:"name"`
	StartCommand  string        `json:"start_command"`
	StopCommand   string        `json:"stop_command,omitempty"`
	RestartPolicy RestartPolicy `json:"restart_policy"`
	// User is a login name; "" means root.
	User string `json:"user,omitempty"`
	// WorkingDirectory is an absolute path, or "".
	WorkingDirectory string              `json:"working_directory,omitempty"`
	Env              map[string]string   `json:"env,omitempty"`
	ExposedPorts     []Port              `json:"exposed_ports,omitempty"`
	Capabilities     []string            `json:"capabilities,omitempty"`
	Health           *Health             `json:"health,omitempty"`
	Dependencies     []ServiceDependency `json:"dependencies,omitempty"`
	// Metadata is passed on as it is; see Manifest.Skills for the types.
	Metadata map[string]any `json:"metadata,omitempty"`
}

// Port is a port on which a service listens.
type Port struct {
	Port uint16 `json:"port"`
	// Protocol is "tcp" (the default), "udp" or "sctp".
	Protocol string `json:"protocol"`
	Name     string `json:"name,omitempty"`
}

// Health says how to ask a service whether it is well.
type Health struct {
	Endpoint string `json:"endpoint"`
	// Method is "GET" (the default), "POST", "PUT", "TCP" or "EXEC", whose Endpoint is a command line.
	Method string `json:"method"`
	// IntervalSeconds (30), TimeoutSeconds (5) and InitialDelaySeconds (10) have the defaults
	// in parentheses.
	IntervalSeconds     int `json:"interval_seconds"`
	TimeoutSeconds      int `json:"timeout_seconds"`
	InitialDelaySeconds int `json:"initial_delay_seconds"`
}

// ServiceDependency makes a service wait for another of the same module.
type ServiceDependency struct {
	Service string `json:"service"`
	// Kind is "requires_health" (the default), "start_before" or "softdep".
	Kind string `json:"kind"`
}
