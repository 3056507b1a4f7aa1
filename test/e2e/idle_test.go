package e2e

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What a service that has nothing to do may take: of memory, its own pages and those of the program's file, and of one core.
const (
	idleMemory = 25_000_000
	idleShare  = 0.001
)

// TestIdle holds a service that has nothing to do to what it may take, for as long as POWERNODE_E2E_IDLE says: resident memory at the end, and the share
// of one core over the time after the first minute. Processor time has steps of 10 ms: a time of less than 3 minutes proves little.
func TestIdle(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("POWERNODE_E2E_IDLE"))
	if err != nil {
		t.Skip("POWERNODE_E2E_IDLE says for how long: 5m")
	}
	p := platformWith(t, base("1"), app("1"))
	s := p.node("web", "base", "app").boot()
	s.serve()
	s.done("introspect")
	pid := s.servicePID()
	time.Sleep(time.Minute)
	before := s.ticks(pid)
	time.Sleep(length)
	used := time.Duration(s.ticks(pid)-before) * time.Second / 100 // USER_HZ is 100 on every architecture of ours
	status := s.read("/proc/" + pid + "/status")
	for _, name := range []string{"VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem", "Threads"} {
		t.Log(regexp.MustCompile(`(?m)^` + name + `:.*$`).FindString(status))
	}
	share := used.Seconds() / length.Seconds()
	t.Logf("%s of a core in %s: %.3f %%", used, length, 100*share)
	if share >= idleShare {
		t.Errorf("it takes %.3f %% of a core, and may take less than %.1f %%", 100*share, 100*idleShare)
	}
	if resident := kibibytes(t, status, "VmRSS") << 10; resident >= idleMemory {
		t.Errorf("%d bytes are resident, and less than %d may be", resident, idleMemory)
	}
	s.served()
	s.exit()
}

// kibibytes returns a field of /proc/PID/status that is a size (proc(5)).
func kibibytes(t *testing.T, status, name string) int {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + name + `:\s+([0-9]+) kB$`).FindStringSubmatch(status)
	if found == nil {
		t.Fatalf("no %s in %q", name, status)
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// servicePID finds the service among the processes inside.
func (s *system) servicePID() string {
	s.t.Helper()
	for _, name := range strings.Fields(s.do("list", "", "/proc").Stdout) {
		if _, err := strconv.Atoi(name); err != nil {
			continue
		}
		words := strings.Split(s.do("read", "", "/proc/"+name+"/cmdline").Stdout, "\x00")
		if len(words) > 1 && words[1] == "service" {
			return name
		}
	}
	s.t.Fatal("no service runs")
	return ""
}

// ticks is the processor time that a process has used (proc(5): utime and stime).
func (s *system) ticks(pid string) int {
	s.t.Helper()
	stat := s.read("/proc/" + pid + "/stat")
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		s.t.Fatalf("%q: %v, %v", stat, err1, err2)
	}
	return user + system
}
