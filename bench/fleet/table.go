package main

import (
	"fmt"
	"os"
	"time"
)

const header = "" +
	"   heartbeats/s     heartbeats, ms          tasks, ms             processors           memory             late,   \n" +
	"  meant    sent    p50    p99    max    p50    p99    max  platform database fleet    MiB KiB/node  failed  ms p99"

// row is what came of one rate.
type row struct {
	rate, sent              float64
	failed, overrun         int64
	beats, dispatches, late distribution
	used                    shares
	resident                int64
	nodes                   int
}

// String returns a line below header.
func (r row) String() string {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return fmt.Sprintf("%7.0f %7.0f %6.1f %6.1f %6.0f %6.1f %6.1f %6.0f  %8.2f %8.2f %5.2f %6.0f %8.1f %7d %7.1f",
		r.rate, r.sent, ms(r.beats.at(0.5)), ms(r.beats.at(0.99)), ms(r.beats.at(1)), ms(r.dispatches.at(0.5)), ms(r.dispatches.at(0.99)), ms(r.dispatches.at(1)),
		r.used.platform, r.used.database, r.used.fleet, mebibytes(r.resident), float64(r.resident)/1024/float64(r.nodes), r.failed+r.overrun, ms(r.late.at(0.99)))
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// usages is what everyone has used: all platforms together, the database's server, and the fleet itself.
type usages struct{ platform, database, fleet usage }

// shares are how many processors were busy with each.
type shares struct{ platform, database, fleet float64 }

func (u usages) since(before usages, took time.Duration) shares {
	share := func(a, b usage) float64 { return float64(a.cpu-b.cpu) / float64(took) }
	return shares{share(u.platform, before.platform), share(u.database, before.database), share(u.fleet, before.fleet)}
}

// usage returns what everyone has used up to now.
func (f *fleet) usage() (all usages, err error) {
	for _, p := range f.o.Platforms {
		u, err := usageOf(p.pid)
		if err != nil {
			return all, err
		}
		all.platform.cpu += u.cpu
		all.platform.resident += u.resident
	}
	if f.o.DatabasePID != 0 {
		if all.database, err = usageOfServer(f.o.DatabasePID); err != nil {
			return all, err
		}
	}
	all.fleet, err = usageOf(os.Getpid())
	return all, err
}
