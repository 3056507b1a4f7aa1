package services

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// What of a unit's log is shown.
const (
	logLines   = 10
	logBytes   = 16 << 10
	logTimeout = 5 * time.Second
)

// Journal returns the last ten lines that a unit logged, by journalctl: it knows every form that the journal's files have had.
func Journal(ctx context.Context, unit string) ([]string, error) {
	if UnitModule(unit) == "" {
		return nil, fmt.Errorf("%.80q is not a unit of a module", unit)
	}
	ctx, cancel := context.WithTimeout(ctx, logTimeout)
	defer cancel()
	out := &tail{limit: logBytes}
	cmd := exec.CommandContext(ctx, "journalctl", "--no-pager", "--quiet", "--output=cat", "--lines="+strconv.Itoa(logLines), "--unit="+unit) //nolint:gosec // the unit's name was checked
	cmd.Stdout = out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	return lastLines(out.data), nil
}

func lastLines(text []byte) []string {
	var lines []string
	for line := range strings.Lines(string(bytes.ToValidUTF8(text, []byte("?")))) {
		lines = append(lines, fault.OneLine(strings.TrimRight(line, "\n")))
	}
	return lines[max(0, len(lines)-logLines):]
}

// tail keeps the end of what is written to it.
type tail struct {
	limit int
	data  []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	t.data = t.data[max(0, len(t.data)-t.limit):]
	return len(p), nil
}
