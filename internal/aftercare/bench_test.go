package aftercare

import (
	"fmt"
	"testing"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/health/systemd"
)

// A module of 500 files, one of them a service, comes to a root of 60,000, on which 60 services run.
func BenchmarkDecide(b *testing.B) {
	from := base.with(nil)
	for i := range 60_000 {
		from[fmt.Sprintf("/usr/share/p%d/d%d/f%d", i/2000, i/50, i)] = "x"
	}
	var units []systemd.LoadedUnit
	for i := range 60 {
		name := fmt.Sprintf("s%d.service", i)
		from["/usr/lib/systemd/system/"+name] = webText
		units = append(units, runs(name, fmt.Sprintf("/usr/share/p0/d0/f%d", i), func(u *systemd.LoadedUnit) { u.Arguments = []string{"x", "/etc/s/x.conf"} }))
	}
	to := from.with(files{webUnit: webText, wanted + "web.service": "-> ../web.service", "/etc/web/web.conf": "x", "/usr/lib/sysusers.d/web.conf": "x"})
	for i := range 500 {
		to[fmt.Sprintf("/usr/lib/web/f%d", i)] = "x"
	}
	in := Input{From: from.tree(), To: to.tree(), Systemd: true, Kernel: "6.12.0", Units: append(units, active("multi-user.target")), Owner: func(string) string { return "x" }}
	in.Difference = difference.Compare(in.From, in.To)
	b.ReportAllocs()
	for b.Loop() {
		if p := Decide(in); len(p.Start) != 1 || len(p.Run) != 1 {
			b.Fatalf("%+v", p)
		}
	}
}

// All processes of this machine are looked at.
func BenchmarkUsing(b *testing.B) {
	d := &difference.Difference{Entries: []difference.Entry{{Path: "/usr/bin/none", Kind: difference.Removed}}}
	s := Scan{View: View{Root: "/"}}
	n := 0
	for range procfs("/proc").processes() {
		n++
	}
	for b.Loop() {
		if _, err := s.Using(b.Context(), d, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n), "processes")
}
