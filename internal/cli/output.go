package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Format is the value of --output.
type Format string

// The formats.
const (
	Table Format = "table"
	JSON  Format = "json"
)

// String, Set and Type make Format a flag.
func (f *Format) String() string { return string(*f) }

// Set refuses a format that isn't known.
func (f *Format) Set(s string) error {
	switch Format(s) {
	case Table, JSON:
		*f = Format(s)
		return nil
	}
	return fault.New(fault.Refuse, fault.Input, "use table or json", "unknown output format %q", s)
}

// Type names the flag's kind of value in --help.
func (f *Format) Type() string { return "table|json" }

// Print writes doc as indented JSON where --output json asks for it, and otherwise calls table,
// which writes for a person.
func (a *App) Print(doc any, table func(w io.Writer) error) error {
	if a.Format == JSON {
		return a.writeJSON(a.Out, doc)
	}
	return table(a.Out)
}

func (a *App) writeJSON(w io.Writer, doc any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(doc)
}

// Rows writes a table: a header and rows of the same length, columns aligned.
func Rows(w io.Writer, header []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(header, "\t"))
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = Printable(cell)
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	return tw.Flush()
}

// Pairs writes aligned "key: value" lines, in the order given.
func Pairs(w io.Writer, pairs [][2]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range pairs {
		fmt.Fprintf(tw, "%s:\t%s\n", p[0], Printable(p[1]))
	}
	return tw.Flush()
}

// ShortDigest returns enough of a digest to tell two apart, without its algorithm; --output json
// has the whole.
func ShortDigest(digest string) string {
	digest = strings.TrimPrefix(digest, "sha256:")
	return digest[:min(len(digest), 12)]
}

// Count renders a number of things, whose plural ends in an s: "1 module", "2 modules".
func Count[N ~int | ~int64 | ~uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// Bytes renders a size in bytes for people: "4.2 MiB".
func Bytes(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	div, exp := uint64(unit), 0
	for m := n / unit; m >= unit; m /= unit {
		div *= unit
		exp++
	}
	return fmt.Sprintf("%.1f %ciB", float64(n)/float64(div), "KMGTPE"[exp])
}
