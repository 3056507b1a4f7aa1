package change

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/mount"
)

// BenchmarkLive attaches and detaches a module of 500 files on roots of so many names in so many modules, without the mounts: pure
// bookkeeping. A plan is what --dry-run does.
func BenchmarkLive(b *testing.B) {
	for _, c := range []struct{ names, modules int }{{10_000, 5}, {60_000, 5}, {200_000, 5}, {60_000, 50}} {
		b.Run(fmt.Sprintf("%d names in %d modules", c.names, c.modules), func(b *testing.B) {
			n := crowded(b, c.names, c.modules)
			for _, r := range []Request{{Kind: Detach, Modules: []string{"extra"}, DryRun: true}, {Kind: Detach, Modules: []string{"extra"}}} {
				name := "live"
				if r.DryRun {
					name = "plan"
				}
				b.Run(name, func(b *testing.B) {
					cpu := used(b)
					for b.Loop() {
						n.must(r)
						if !r.DryRun {
							r.Kind = map[Kind]Kind{Detach: Attach, Attach: Detach}[r.Kind]
						}
					}
					b.ReportMetric(float64((used(b)-cpu).Milliseconds())/float64(b.N), "cpu-ms/op")
					if r.Kind == Attach {
						n.must(r)
					}
				})
			}
		})
	}
}

// crowded is a node with so many names, two of three of which have content of their own.
func crowded(b *testing.B, names, modules int) *node {
	b.Helper()
	w := newWorld(b)
	for m := range modules {
		files := make(map[string]string)
		for i := range names / modules {
			path := fmt.Sprintf("usr/lib/module-%d/%d/%d/file", m, i/400, i)
			if i%3 == 0 {
				files[path] = "short"
			} else {
				files[path] = long(path)
			}
		}
		w.module(fmt.Sprintf("m%d", m), "1", files)
	}
	files := make(map[string]string)
	for i := range 500 {
		files[fmt.Sprintf("usr/lib/extra/%d", i)] = long(fmt.Sprint(i))
	}
	w.module("extra", "1", files)
	w.level = mount.Enforced
	if w.store.Verity() != nil {
		w.level = mount.Checked
	}
	b.Logf("level %s", w.level)
	return w.runs()
}

// used is the time that this process has taken of the processors: beside others, it says more than the clock.
func used(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
