package health

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
)

// ReportName is the file in the directory of the running boot that holds the Report; reportMax bounds it in bytes.
const (
	ReportName = "health.json"
	reportMax  = 64 << 10
)

// Report is what the gate of this boot says at present.
type Report struct {
	Generation uint64    `json:"generation"`
	At         time.Time `json:"at"`
	Verdict
}

// WriteReport leaves a report in runDir. Readers see the old one or the new one.
func WriteReport(runDir string, r Report) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	// It lies in memory: there is nothing to sync.
	temp := filepath.Join(runDir, "."+ReportName)
	if err := os.WriteFile(temp, append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(runDir, ReportName))
}

// ReadReport returns the report in runDir. The error wraps fs.ErrNotExist where no gate has begun.
func ReadReport(runDir string) (Report, error) {
	var r Report
	dir, err := durable.OpenDir(runDir, nil)
	if err == nil {
		defer dir.Close()
		err = dir.ReadJSON(ReportName, reportMax, &r)
	}
	if err != nil {
		return Report{}, fmt.Errorf("read the verdict on this boot: %w", err)
	}
	return r, nil
}
