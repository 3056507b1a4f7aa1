package vm

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/test/lab"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// benchModulesEnv names a directory with the layouts of the demo's modules. Without, the benchmarks
// make a tree of about the same size.
const benchModulesEnv = "POWERNODE_BENCH_MODULES"

// reader is where a benchmark's root has bench/read.
const reader = "/usr/bin/powernode-bench-read"

// benchNode publishes the demo's modules, and returns a node that has them, with the tests' init in
// the place of systemd, and a number of files of 16 MiB besides.
func benchNode(b *testing.B, large int) *node {
	b.Helper()
	p := newPlatform(b)
	own := lab.Module{Name: "bench", Version: "1", Files: map[string]string{}, Programs: map[string][]byte{
		"usr/sbin/init": lab.Read(b, lab.Program("init")), reader[1:]: program(b, "read"),
	}}
	random := rand.NewChaCha8([32]byte{})
	content := func(size int) string {
		data := make([]byte, size)
		_, _ = random.Read(data) // it can't fail
		return string(data)
	}
	for i := range large {
		own.Files["usr/share/bench/"+strconv.Itoa(i)] = content(16 << 20)
	}
	names := []string{"bench"}
	if dir := os.Getenv(benchModulesEnv); dir != "" {
		for name, flags := range map[string][]string{
			"system-base": {"--priority", "0"}, "nginx": {"--priority", "10"}, "nginx-site": {"--variety", "config"},
		} {
			p.PublishLayout(append([]string{filepath.Join(dir, name)}, flags...)...)
			names = append(names, name)
		}
	} else {
		tree := base(b, "1")
		for i := range 4300 { // a Debian's median file has 3 KB, its mean 25
			tree.Files[fmt.Sprintf("usr/share/doc/%d/%d", i/40, i)] = content(300 << (i % 9))
		}
		p.Publish(tree, "--priority", "0")
		names = append(names, "base")
	}
	p.Publish(own, "--priority", "50")
	slices.Sort(names)
	n := p.node("bench", names...)
	// As every processor of the last ten years; else the kernel takes seconds to gather randomness.
	n.machine.CPU = "qemu64,+rdrand"
	if os.Getenv("ICOUNT") != "" {
		n.machine.Flags = []string{"-icount", "shift=1,sleep=on"}
	}
	return n
}

// program builds a program of bench/.
func program(b *testing.B, name string) []byte {
	b.Helper()
	out := filepath.Join(lab.TempDir(b), name)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "../../bench/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v:\n%s", err, text)
	}
	return lab.Read(b, out)
}

// benchBoot is what a boot says of itself.
type benchBoot struct {
	boot.Facts
	// up is when init answered, in milliseconds by the kernel's clock, which begins with the kernel.
	up float64
	// free is the memory that init finds available, in bytes.
	free float64
}

// bootMeasured switches the node on and reads what its boot says of itself.
func (n *node) bootMeasured() (*system, benchBoot) {
	n.t.Helper()
	lab.Read(n.t, n.disk) // the host's disk isn't measured
	s := n.boot()
	var r benchBoot
	uptime, _, _ := strings.Cut(s.Read("/proc/uptime"), " ")
	r.up = 1000 * decimal(n.t, uptime)
	for line := range strings.Lines(s.Read("/proc/meminfo")) {
		if f := strings.Fields(line); f[0] == "MemAvailable:" {
			r.free = 1024 * decimal(n.t, f[1])
		}
	}
	r.Facts = s.journal()
	return s, r
}

// cameUp runs the agent's service until it has written down that this boot's system came up: after one that
// didn't, the next boot reads every byte.
func (s *system) cameUp(bootID string) {
	s.n.t.Helper()
	s.Do(qemu.Request{Op: "start", Args: []string{"service", boot.AgentPath, "service", "--reconcile=off"}})
	for deadline := time.Now().Add(qemu.Patience); ; time.Sleep(100 * time.Millisecond) {
		up := s.Do(qemu.Request{Op: "read", Args: []string{"/persist/var/lib/powernode/boots/came-up"}})
		if up.Stdout == bootID {
			break
		}
		if time.Now().After(deadline) {
			s.n.t.Fatalf("the service doesn't write down that it came up: %q, not %q", up.Stdout, bootID)
		}
	}
	s.Do(qemu.Request{Op: "stop", Args: []string{"service"}})
}

func decimal(t testing.TB, text string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// BenchmarkBoot measures a node's first boot, and then booting it again: with the network, b.N times,
// and once without. bench/vm-boot.sh runs it.
func BenchmarkBoot(b *testing.B) {
	n := benchNode(b, 0)
	s, cold := n.bootMeasured()
	s.good()
	s.PowerOff()
	var warm []benchBoot
	for b.Loop() {
		s, r := n.bootMeasured()
		s.cameUp(r.Journal.BootID)
		s.PowerOff()
		warm = append(warm, r)
	}
	n.machine.Network = false
	s, alone := n.bootMeasured()
	s.PowerOff()

	out, text := newTable()
	fmt.Fprintf(out, "ms\tfirst boot\tagain\t(least to most)\tno network\t\n")
	row := func(name string, of func(benchBoot) float64) {
		var all []float64
		for _, r := range warm {
			all = append(all, of(r))
		}
		fmt.Fprintf(out, "%s\t%.0f\t%.0f\t(%.0f to %.0f)\t%.0f\t\n", name, of(cold), median(all), slices.Min(all), slices.Max(all), of(alone))
	}
	row("kernel start to agent", func(r benchBoot) float64 { return float64(r.Journal.StartedMillis) })
	for i, stage := range cold.Journal.Stages {
		row(stage.Name, func(r benchBoot) float64 { return float64(r.Journal.Stages[i].Millis) })
	}
	handOver := func(r benchBoot) float64 { return float64(r.Journal.EndedMillis - r.Journal.StartedMillis) }
	row("agent start to hand-over", handOver)
	row("hand-over to init", func(r benchBoot) float64 { return r.up - float64(r.Journal.EndedMillis) })
	row("kernel start to init", func(r benchBoot) float64 { return r.up })
	row("of that the agent, %", func(r benchBoot) float64 { return 100 * handOver(r) / r.up })
	fmt.Fprintf(out, "MB\t\t\t\t\t\n")
	const mega = 1e6
	row("memory available at hand-over", func(r benchBoot) float64 { return float64(r.Memory.Available) / mega })
	row("and to init", func(r benchBoot) float64 { return r.free / mega })
	row("the agent's", func(r benchBoot) float64 { return float64(r.Memory.Resident) / mega })
	row("and at most", func(r benchBoot) float64 { return float64(r.Memory.Peak) / mega })
	text(b, fmt.Sprintf("%d files, level %s, %.0f MB of memory, a processor", cold.Files, cold.Level, float64(cold.Memory.Total)/mega))
}

// BenchmarkRead measures reading the enforced root against copies of it on the same ext4, plain and
// with fs-verity on each file, b.N times in turns. bench/vm-read.sh runs it.
func BenchmarkRead(b *testing.B) {
	n := benchNode(b, 2)
	s := n.boot()
	enforcedLevel(b, s)
	for _, copied := range [][]string{{"plain"}, {"verity", "verity"}} {
		s.Run(append([]string{reader, "copy", "/usr", "/persist/bench/" + copied[0]}, copied[1:]...)...).OK(b)
	}
	s.PowerOff()
	s = n.boot()
	values, counts := map[string][]float64{}, map[string][2]float64{}
	for b.Loop() {
		out := s.Run(reader, "measure", "1", "root=/usr", "plain=/persist/bench/plain", "verity=/persist/bench/verity").OK(b)
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			key := strings.Join(f[:3], " ")
			values[key] = append(values[key], decimal(b, f[3])/1e9)
			counts[f[0]] = [2]float64{decimal(b, f[4]), decimal(b, f[5])}
		}
	}
	s.PowerOff()

	out, text := newTable()
	fmt.Fprintf(out, "\t\tplain ext4\text4 with fs-verity\tenforced root\tratio\t\n")
	for _, op := range []struct{ name, title, unit string }{
		{"find", "find, names/s", ""}, {"small", "files below 64 KiB, files/s", ""}, {"large", "files from 1 MiB, MB/s", "MB"},
	} {
		for _, state := range []string{"cold", "warm"} {
			speed := func(where string) float64 {
				what := counts[op.name][0]
				if op.unit == "MB" {
					what = counts[op.name][1] / 1e6
				}
				return what / median(values[op.name+" "+state+" "+where])
			}
			fmt.Fprintf(out, "%s\t%s\t%.0f\t%.0f\t%.0f\t%.2f\t\n", op.title, state, speed("plain"), speed("verity"), speed("root"), speed("root")/speed("plain"))
		}
	}
	text(b, fmt.Sprintf("%.0f names; %.0f small files of %.1f MB; %.0f large ones of %.1f MB", counts["find"][0],
		counts["small"][0], counts["small"][1]/1e6, counts["large"][0], counts["large"][1]/1e6))
}

// enforcedLevel checks that the kernel checks the reads that are measured.
func enforcedLevel(b *testing.B, s *system) {
	b.Helper()
	if doc := s.status(); doc.Level != "enforced" {
		b.Fatalf("the root's level is %q", doc.Level)
	}
}

// newTable returns where to write a table's rows, and what prints it, below a heading.
func newTable() (*tabwriter.Writer, func(b *testing.B, heading string)) {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	return w, func(b *testing.B, heading string) {
		_ = w.Flush() // into memory
		fmt.Printf("\n%s; median of %d; the host's load is %.4s\n%s", heading, b.N, lab.Read(b, "/proc/loadavg"), text.String())
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
