package rootfs

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
)

// Memory is the memory of the machine and of this process at one moment, in bytes; 0 is unknown.
type Memory struct {
	// Total and Available are the machine's (MemTotal and MemAvailable of proc_meminfo(5)).
	Total     int64 `json:"total_bytes"`
	Available int64 `json:"available_bytes"`
	// Resident is this process's (VmRSS of proc_pid_status(5)), Peak the most it ever was (VmHWM).
	Resident int64 `json:"agent_resident_bytes"`
	Peak     int64 `json:"agent_peak_bytes"`
	// swapFree is what could still be swapped out to.
	swapFree int64
}

// procMax bounds what is read of a file in /proc.
const procMax = 64 << 10

// ReadMemory measures.
func ReadMemory() (Memory, error) {
	var m Memory
	for path, fields := range map[string]map[string]*int64{
		"/proc/meminfo":     {"MemTotal": &m.Total, "MemAvailable": &m.Available, "SwapFree": &m.swapFree},
		"/proc/self/status": {"VmRSS": &m.Resident, "VmHWM": &m.Peak},
	} {
		f, err := os.Open(path)
		if err != nil {
			return Memory{}, fmt.Errorf("measure the memory: %w", err)
		}
		err = parseKilobytes(io.LimitReader(f, procMax), fields)
		f.Close()
		if err != nil {
			return Memory{}, fmt.Errorf("measure the memory: %s: %w", path, err)
		}
	}
	return m, nil
}

// parseKilobytes reads lines "Name:   123 kB" and puts the numbers asked for, times 1024, where
// fields says. Other lines are passed over.
func parseKilobytes(r io.Reader, fields map[string]*int64) error {
	for lines := bufio.NewScanner(r); ; {
		if !lines.Scan() {
			return lines.Err()
		}
		name, value, _ := bytes.Cut(lines.Bytes(), []byte(":"))
		into := fields[string(name)]
		number, ok := bytes.CutSuffix(bytes.TrimSpace(value), []byte(" kB"))
		if into == nil || !ok {
			continue
		}
		n, err := strconv.ParseInt(string(number), 10, 64)
		if err != nil || n < 0 || n > 1<<52 {
			return fmt.Errorf("%s is %q", name, value)
		}
		*into = n * 1024
	}
}
