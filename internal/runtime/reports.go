package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
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
// and once a boot has had the time for its verdict, and when a platform is asked again that doesn't take them, or not this one.
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
	failures, complaint, begun, refused := 0, "", time.Now(), make(map[string]time.Time)
	for ctx.Err() == nil {
		err := b.send(ctx, alive, refused)
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
			if fault.KindOf(err) == fault.Refuse && !aboutTheReport(err) {
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

// send sends everything that is pending. It goes on after one that the platform refuses, so that this
// one doesn't keep the others, and stops where the platform isn't there, or takes none of them. refused
// is when the platform refused the report of a boot: it isn't sent again before reportRefused is over.
func (b BootReports) send(ctx context.Context, alive func(time.Duration), refused map[string]time.Time) error {
	reports, err := b.Source.Pending()
	maps.DeleteFunc(refused, func(_ string, at time.Time) bool { return time.Since(at) >= reportRefused })
	for _, r := range reports {
		if _, ok := refused[r.BootID]; ok {
			continue
		}
		alive(reportTimeout)
		call, cancel := context.WithTimeout(ctx, reportTimeout)
		refusal := b.Platform.BootReport(call, r)
		cancel()
		switch {
		case refusal == nil:
			b.Log.Info("the platform knows of a boot", "boot_id", r.BootID, "outcome", r.Outcome)
			if err := b.Source.Acknowledged(r); err != nil {
				return err
			}
		case aboutTheReport(refusal):
			refused[r.BootID] = time.Now()
			err = errors.Join(err, fmt.Errorf("boot %.40s: %w", r.BootID, refusal))
		default:
			return refusal
		}
	}
	return err
}

// aboutTheReport tells a refusal of one report from one of the node or of every report.
func aboutTheReport(err error) bool {
	switch nodehttp.StatusOf(err) {
	case http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return true
	}
	return false
}
