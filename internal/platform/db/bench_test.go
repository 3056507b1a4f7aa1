package db

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/postgrestest"
)

// BenchmarkHeartbeat is a whole heartbeat of one of a thousand nodes, from many at once: a transaction that reads five tables and writes
// one. The test's PostgreSQL doesn't sync.
func BenchmarkHeartbeat(b *testing.B) {
	at := Options{Path: b.TempDir() + "/platform.db"}
	if postgrestest.Wanted() {
		at = Options{Postgres: first(ParsePostgres(postgrestest.Empty(b), ""))}
	}
	at.Now = newClock().now
	d := first(Open(b.Context(), at))
	defer d.Close()
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = first(d.CreateNode(b.Context(), fmt.Sprintf("n-%d", i), "amd64")).ID
	}
	var next atomic.Int64
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := next.Add(1)
			hb := nodeapi.Heartbeat{BootID: "boot", AgentVersion: "1", Architecture: "amd64", MountState: nodeapi.MountMounted, StateHash: strconv.FormatInt(i, 10)}
			if err := d.Heartbeat(b.Context(), Sender{NodeID: ids[i%1000], CertificateID: "c"}, hb); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
