package runtime

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Facts are what the kernel says of the machine (proc(5)).
type Facts struct {
	// BootID is a UUID that changes with each boot, and not with the agent's process.
	BootID string
	Uptime time.Duration
	// LoadAverage is the load of the last 1, 5 and 15 minutes: "0.12 0.08 0.01".
	LoadAverage string
	// MemoryAvailableKB is what programs can get without swapping, in KiB.
	MemoryAvailableKB int64
}

// ReadFacts reads the facts below proc. What can't be read stays zero, and is in the error.
func ReadFacts(proc string) (Facts, error) {
	var f Facts
	var errs []error
	for _, r := range []struct {
		name  string
		parse func(string, *Facts) error
	}{
		{"sys/kernel/random/boot_id", parseBootID},
		{"uptime", parseUptime},
		{"loadavg", parseLoadAverage},
		{"meminfo", parseMeminfo},
	} {
		text, err := readBounded(filepath.Join(proc, r.name))
		if err == nil {
			err = r.parse(text, &f)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read %s: %w", r.name, err))
		}
	}
	return f, errors.Join(errs...)
}

func readBounded(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	return string(b), err
}

func parseBootID(text string, f *Facts) error {
	id := strings.TrimSpace(text)
	if len(id) != 36 || strings.Trim(id, "0123456789abcdef-") != "" {
		return fmt.Errorf("%.60q isn't a boot ID", id)
	}
	f.BootID = id
	return nil
}

func parseUptime(text string, f *Facts) error {
	first, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	seconds, err := strconv.ParseFloat(first, 64)
	if err != nil || math.IsNaN(seconds) || seconds < 0 || seconds > 1e9 {
		return fmt.Errorf("%.60q isn't an uptime", text)
	}
	f.Uptime = time.Duration(seconds * float64(time.Second))
	return nil
}

func parseLoadAverage(text string, f *Facts) error {
	fields := strings.Fields(text)
	if len(fields) < 3 {
		return fmt.Errorf("%.60q isn't a load average", text)
	}
	for _, v := range fields[:3] {
		if load, err := strconv.ParseFloat(v, 64); err != nil || math.IsNaN(load) || load < 0 || len(v) > 16 {
			return fmt.Errorf("%.60q isn't a load average", text)
		}
	}
	f.LoadAverage = strings.Join(fields[:3], " ")
	return nil
}

func parseMeminfo(text string, f *Facts) error {
	for line := range strings.Lines(text) {
		value, ok := strings.CutPrefix(line, "MemAvailable:")
		if !ok {
			continue
		}
		// "MemAvailable:    3911484 kB"
		fields := strings.Fields(value)
		if len(fields) != 2 || fields[1] != "kB" {
			return fmt.Errorf("%.60q isn't an amount of memory", value)
		}
		kb, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil || kb < 0 {
			return fmt.Errorf("%.60q isn't an amount of memory", value)
		}
		f.MemoryAvailableKB = kb
		return nil
	}
	return errors.New("there is no MemAvailable")
}
