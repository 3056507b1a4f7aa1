package runtime

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// Loop is work that goes on beside the heartbeats until ctx ends. It calls alive with the time
// within which it will call it again.
type Loop interface {
	Run(ctx context.Context, alive func(time.Duration))
}

// BootSource knows the node's last boots.
type BootSource interface {
	// Pending returns what the platform hasn't been told of them, oldest first: also what is known
	// anew of a boot that it was told of. It may return some beside an error.
	Pending() ([]nodeapi.BootReport, error)
	// Acknowledged says that the platform has this one.
	Acknowledged(nodeapi.BootReport) error
}

// BootPlatform takes boot reports. A *nodeclient.Client is one.
type BootPlatform interface {
	BootReport(ctx context.Context, report nodeapi.BootReport) error
}

// BootReports is the loop that tells the platform of the node's boots, each until it is acknowledged.
// All of its fields but Rand are required.
type BootReports struct {
	Source   BootSource
	Platform BootPlatform
	Log      *slog.Logger
	// Rand returns numbers of [0,1) to spread the intervals by; nil is math/rand.
	Rand func() float64
}

// The rhythm of boot reports: how long one may take, how often it is looked for something new, at first
// and once a boot has had the time for its verdict, and when a platform is asked again that doesn't take them.
const (
	reportTimeout  = 30 * time.Second
	reportSoon     = 5 * time.Second
	reportSettling = 10 * time.Minute
	reportLook     = 2 * time.Minute
	reportRefused  = time.Hour
)

// Run implements Loop.
func (b BootReports) Run(ctx context.Context, alive func(time.Duration)) {
	if b.Rand == nil {
		b.Rand = rand.Float64
	}
	failures, complaint, begun := 0, "", time.Now()
	for ctx.Err() == nil {
		err := b.send(ctx, alive)
		wait := reportLook
		if time.Since(begun) < reportSettling {
			wait = reportSoon
		}
		switch {
		case err == nil:
			failures, complaint = 0, ""
		case ctx.Err() != nil:
			return
		default:
			failures++
			wait = NextInterval(Outcome{Failures: failures, RetryAfter: nodehttp.RetryAfter(err)}, b.Rand())
			if fault.KindOf(err) == fault.Refuse {
				wait = reportRefused
			}
			if text := err.Error(); text != complaint {
				complaint = text
				b.Log.Warn("the platform doesn't know of this node's boots yet", "error", err, "hint", fault.HintOf(err))
			}
		}
		alive(wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// send sends everything that is pending, and stops at the first that isn't acknowledged.
func (b BootReports) send(ctx context.Context, alive func(time.Duration)) error {
	reports, sourceErr := b.Source.Pending()
	for _, r := range reports {
		alive(reportTimeout)
		call, cancel := context.WithTimeout(ctx, reportTimeout)
		err := b.Platform.BootReport(call, r)
		cancel()
		if err == nil {
			b.Log.Info("the platform knows of a boot", "boot_id", r.BootID, "outcome", r.Outcome)
			err = b.Source.Acknowledged(r)
		}
		if err != nil {
			return err
		}
	}
	return sourceErr
}
