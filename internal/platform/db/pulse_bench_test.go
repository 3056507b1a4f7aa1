package db

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// BenchmarkPulse is a pulse of one of a thousand nodes, from many at once.
func BenchmarkPulse(b *testing.B) {
	c := newClock()
	d, err := Open(b.Context(), Options{Path: filepath.Join(b.TempDir(), "platform.db"), Now: c.now})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	ids := make([]string, 1000)
	hb := nodeapi.Heartbeat{BootID: "boot", AgentVersion: "1", Architecture: "amd64", MountState: nodeapi.MountMounted, StateHash: "hash"}
	for i := range ids {
		n, err := d.CreateNode(b.Context(), fmt.Sprintf("n-%d", i), "amd64")
		if err != nil {
			b.Fatal(err)
		}
		if err := d.Heartbeat(b.Context(), Sender{NodeID: n.ID}, hb); err != nil {
			b.Fatal(err)
		}
		ids[i] = n.ID
	}
	var next atomic.Int64
	b.SetParallelism(64)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			known, err := d.Pulse(b.Context(), ids[next.Add(1)%1000], hb.Pulse())
			if err != nil || !known {
				b.Errorf("%v, %v", known, err)
				return
			}
		}
	})
}
