// Package version says what build this is: version, commit and date, set by the linker and
// otherwise read from what the Go tool recorded in the binary.
//
// It trusts the build. It imports only the standard library and the contract's version.
package version

import (
	"runtime"
	"runtime/debug"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Set by the linker: -X .../internal/version.version=v1.2.3 and so on.
var (
	version string
	commit  string
	date    string
)

// Info is everything that is known of the build.
type Info struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	// Date is the commit's date (RFC 3339), not the build's: builds are reproducible.
	Date     string `json:"date"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	// Protocol is the node_api version, ModuleSchema the manifest's schema_version, Image the
	// composefs format version that is sealed and mounted.
	Protocol     int `json:"protocol_version"`
	ModuleSchema int `json:"module_schema_version"`
	Image        int `json:"image_version"`
}

// Written returns when the source was written; zero where that isn't known.
func (i Info) Written() time.Time {
	t, err := time.Parse(time.RFC3339, i.Date)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Get returns the Info of this binary. What isn't known is "unknown".
func Get() Info {
	i := Info{
		Version: version, Commit: commit, Date: date,
		Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Protocol: nodeapi.Version, ModuleSchema: 1, Image: 1,
	}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			switch {
			case s.Key == "vcs.revision" && i.Commit == "":
				i.Commit = s.Value
			case s.Key == "vcs.time" && i.Date == "":
				i.Date = s.Value
			}
		}
		if i.Version == "" && b.Main.Version != "" {
			i.Version = b.Main.Version
		}
	}
	for _, s := range []*string{&i.Version, &i.Commit, &i.Date} {
		if *s == "" {
			*s = "unknown"
		}
	}
	return i
}
