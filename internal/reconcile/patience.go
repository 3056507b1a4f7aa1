package reconcile

import (
	"time"

	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/ociimage"
)

// Patience says how long to go on while the platform, or a registry, doesn't answer. The zero
// value is that of the packages which ask: about a minute.
type Patience struct {
	// Retry and HTTP are for calls to the platform.
	Retry nodehttp.Backoff
	HTTP  nodehttp.Options
	// Registry is for requests to registries, each by itself. A download that goes on is not cut off; one
	// that brings nothing for Stall is, 0 being a minute.
	Registry ociimage.Retrying
	Stall    time.Duration
	// Look bounds what comes before the download of a module: its manifest and its signatures. 0 is no
	// bound.
	Look time.Duration
}

// Brief is for a machine that can do without the platform: whatever is wrong with it, a call is
// over within a quarter of a minute, and so is the look at a module. Another attempt may begin until
// Elapsed, and takes Timeout at the most.
func Brief() Patience {
	return Patience{
		Retry:    nodehttp.Backoff{Tries: 3, Elapsed: 8 * time.Second, First: 500 * time.Millisecond, Max: 2 * time.Second},
		HTTP:     nodehttp.Options{Timeout: 6 * time.Second, Stall: 5 * time.Second},
		Registry: ociimage.Retrying{Attempts: 3, Max: 2 * time.Second},
		Stall:    10 * time.Second,
		Look:     10 * time.Second,
	}
}

// Long is for a machine that has nothing to run without the platform: it may be starting itself,
// after the same power cut.
func Long() Patience {
	return Patience{
		Retry:    nodehttp.Backoff{Elapsed: 10 * time.Minute, First: time.Second, Max: 15 * time.Second},
		Registry: ociimage.Retrying{Attempts: 20},
	}
}
