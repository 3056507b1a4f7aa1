// Package metrics tells Prometheus how the service is, in the text format (prometheus.io/docs/instrumenting/exposition_formats), over a
// Unix socket, at a loopback address, or in a file for the node exporter's textfile collector.
//
// It promises that nobody from another machine is answered, that a reader of the file never sees half of it, and that a reader
// who stalls holds nothing up. It trusts every process of this machine that can reach the address.
package metrics

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Metric is one sample. Those of one name stand together, and have the same Help.
type Metric struct {
	Name, Help string
	// Counter says that the value only grows.
	Counter bool
	Labels  []Label
	Value   float64
}

// Label is a dimension.
type Label struct{ Name, Value string }

// Write writes the samples.
func Write(w io.Writer, all []Metric) error {
	b := bufio.NewWriter(w)
	last := ""
	for _, m := range all {
		if m.Name != last {
			last = m.Name
			kind := "gauge"
			if m.Counter {
				kind = "counter"
			}
			fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", m.Name, strings.NewReplacer("\\", `\\`, "\n", `\n`).Replace(m.Help), m.Name, kind)
		}
		_, _ = b.WriteString(m.Name) // Flush says what went wrong
		for i, l := range m.Labels {
			sign := ","
			if i == 0 {
				sign = "{"
			}
			fmt.Fprintf(b, `%s%s="%s"`, sign, l.Name, strings.NewReplacer("\\", `\\`, "\n", `\n`, `"`, `\"`).Replace(l.Value))
		}
		if len(m.Labels) > 0 {
			_, _ = b.WriteString("}")
		}
		_, _ = b.WriteString(" " + number(m.Value) + "\n")
	}
	return b.Flush()
}

func number(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// ParseAddress reads "unix:PATH", with an absolute path, or "ADDRESS:PORT" of this machine alone.
func ParseAddress(text string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path || len(path) > 100 {
			return "", "", fault.New(fault.Refuse, fault.Input, "name an absolute path of at most 100 bytes", "metrics at %.120q", text)
		}
		return "unix", path, nil
	}
	at, err := netip.ParseAddrPort(text)
	if err != nil || !at.Addr().IsLoopback() || at.Port() == 0 {
		return "", "", fault.New(fault.Refuse, fault.Input, "use unix:PATH, or 127.0.0.1:PORT", "metrics at %.120q: that isn't an address of this machine alone", text)
	}
	return "tcp", at.String(), nil
}
