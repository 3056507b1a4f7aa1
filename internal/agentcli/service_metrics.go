package agentcli

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/runtime"
	"github.com/powernode/powernode-agent/internal/runtime/metrics"
	"github.com/powernode/powernode-agent/internal/version"
)

// metricsFlags say where metrics go; nowhere without them.
type metricsFlags struct{ listen, textfile string }

// textfileEvery is how often the file of metrics is written.
const textfileEvery = 15 * time.Second

// loops returns what tells the metrics.
func (f metricsFlags) loops(s *assembled) ([]runtime.Loop, error) {
	var loops []runtime.Loop
	log := s.config.Log
	if f.listen != "" {
		network, address, err := metrics.ParseAddress(f.listen)
		if err != nil {
			return nil, err
		}
		loops = append(loops, metrics.Server{Network: network, Address: address, Collect: s.metrics, Log: log})
	}
	if f.textfile != "" {
		if !filepath.IsAbs(f.textfile) || filepath.Ext(f.textfile) != ".prom" {
			return nil, fault.New(fault.Refuse, fault.Input, "name an absolute path that ends with .prom", "--metrics-textfile %.120q", f.textfile)
		}
		loops = append(loops, runtime.Chore{
			Name: "write the metrics", Every: textfileEvery, Last: true, Log: log,
			Do: func(context.Context) (bool, error) { return false, writeMetrics(f.textfile, s.metrics()) },
		})
	}
	return loops, nil
}

func writeMetrics(path string, all []metrics.Metric) error {
	dir, err := durable.OpenDir(filepath.Dir(path), nil)
	if err != nil {
		return err
	}
	defer dir.Close()
	return metrics.WriteFile(dir, filepath.Base(path), all)
}

// metrics returns how the service is now.
func (s *assembled) metrics() []metrics.Metric {
	gauge := func(name, help string, v float64) metrics.Metric {
		return metrics.Metric{Name: "powernode_agent_" + name, Help: help, Value: v}
	}
	counter := func(name, help string, v uint64) metrics.Metric {
		return metrics.Metric{Name: "powernode_agent_" + name, Help: help, Value: float64(v), Counter: true}
	}
	info := gauge("info", "The agent's version, as a label.", 1)
	info.Labels = []metrics.Label{{Name: "version", Value: version.Get().Version}}
	all := []metrics.Metric{info}
	if service := s.work.service.Load(); service != nil {
		v := service.View()
		all = append(all,
			counter("heartbeats_total", "Heartbeats that the platform acknowledged.", v.Acknowledged),
			counter("heartbeat_failures_total", "Heartbeats that it didn't.", v.Failed),
			gauge("heartbeat_failures_in_a_row", "Heartbeats that failed since the last that was acknowledged.", float64(v.FailuresInARow)))
		if !v.Last.IsZero() {
			all = append(all, gauge("heartbeat_last_timestamp_seconds", "When a heartbeat was acknowledged last.", float64(v.Last.UnixMilli())/1000))
		}
	}
	if s.work.tasks != nil {
		v := s.work.tasks.View()
		all = append(all,
			gauge("tasks_running", "Tasks that run.", float64(len(v.Running))),
			counter("tasks_begun_total", "Tasks that were begun.", v.Begun),
			counter("tasks_completed_total", "Tasks that were done.", v.Completed),
			counter("tasks_failed_total", "Tasks that weren't.", v.Failed),
			gauge("task_lease_failures_in_a_row", "Calls for tasks that failed since the last that didn't.", float64(v.LeaseFailures)))
	}
	if s.work.reconcile != nil {
		v := s.work.reconcile.View()
		all = append(all,
			gauge("reconcile_busy", "1 while the node is brought in step.", one(s.work.reconcile.Busy())),
			gauge("reconcile_failures_in_a_row", "Attempts to bring the node in step that failed since the last that didn't.", float64(v.Failures)))
	}
	if c, err := s.platform.keeper.Status(); err == nil && !c.NotAfter.IsZero() {
		all = append(all, gauge("certificate_not_after_timestamp_seconds", "When the node's certificate ends.", float64(c.NotAfter.Unix())))
	}
	return append(all, processMetrics()...)
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// processMetrics are those of the process, by the names that every client library of Prometheus uses.
func processMetrics() []metrics.Metric {
	var all []metrics.Metric
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			if pages, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
				all = append(all, metrics.Metric{Name: "process_resident_memory_bytes", Help: "Resident memory.", Value: float64(pages * int64(os.Getpagesize()))})
			}
		}
	}
	if used, err := processorTime(); err == nil {
		all = append(all, metrics.Metric{Name: "process_cpu_seconds_total", Help: "Processor time of user and system.", Value: used.Seconds(), Counter: true})
	}
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		all = append(all, metrics.Metric{Name: "process_open_fds", Help: "Open descriptors.", Value: float64(len(entries) - 1)})
	}
	return all
}

// processorTime is what this process has used of processors.
func processorTime() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
