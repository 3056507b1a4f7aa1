package agentcli

import (
	"fmt"
	"io"
	"strings"

	"github.com/powernode/powernode-agent/internal/cli"
)

// syncDoc is the documented shape of `sync --output json`.
type syncDoc struct {
	DryRun bool `json:"dry_run"`
	// ConfigDigest is that of the configuration; "" of a platform that tells authorized keys only.
	ConfigDigest string     `json:"config_digest,omitempty"`
	Parts        []syncPart `json:"parts"`
	// Modules is what update prints.
	Modules *changeDoc `json:"modules,omitempty"`
}

// syncPart is one part of a sync.
type syncPart struct {
	// Part is "modules", "authorized keys", "host name", "hosts", or "configuration" where that couldn't be read.
	Part string `json:"part"`
	// User is whose keys.
	User   string     `json:"user,omitempty"`
	Result syncResult `json:"result"`
	// What is a sentence for people, where the rest doesn't say it.
	What string `json:"what,omitempty"`
	Path string `json:"path,omitempty"`
	// Added and Removed are lines.
	Added   []string `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"`
	Remarks []string `json:"remarks,omitempty"`
	// Unreached says that a registry couldn't be reached, and so another attempt may do more.
	Unreached bool   `json:"unreached,omitempty"`
	Error     string `json:"error,omitempty"`
	Hint      string `json:"hint,omitempty"`
}

// The parts.
const (
	partModules  = "modules"
	partKeys     = "authorized keys"
	partHostname = "host name"
	partHosts    = "hosts"
	partConfig   = "configuration"
)

// syncResult says what a part came to.
type syncResult string

// The results.
const (
	syncInStep      syncResult = "in step"
	syncChanged     syncResult = "changed"
	syncWouldChange syncResult = "would change"
	// syncPartly is of modules of which some are refused, or of steps after the change that failed; the rest is as it should be.
	syncPartly syncResult = "partly"
	// syncNotSet is what the platform says nothing about.
	syncNotSet syncResult = "not set"
	syncFailed syncResult = "failed"
)

// table prints one row for each part, and below what is added and removed, as a difference.
func (d *syncDoc) table(w io.Writer) error {
	rows := make([][]string, len(d.Parts))
	for i, p := range d.Parts {
		rows[i] = []string{p.name(), string(p.Result), p.words()}
	}
	if err := cli.Rows(w, []string{"PART", "RESULT", "WHAT"}, rows); err != nil {
		return err
	}
	for _, p := range d.Parts {
		for _, r := range p.Remarks {
			fmt.Fprintf(w, "\n%s: %s\n", p.name(), cli.Printable(r))
		}
		if len(p.Added)+len(p.Removed) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s:\n", strings.TrimSuffix(p.name()+", "+p.Path, ", "))
		for _, line := range p.Removed {
			fmt.Fprintf(w, "- %s\n", cli.Printable(line))
		}
		for _, line := range p.Added {
			fmt.Fprintf(w, "+ %s\n", cli.Printable(line))
		}
	}
	return nil
}

func (p syncPart) name() string {
	if p.User != "" {
		return cli.Printable(p.Part + " of " + p.User)
	}
	return p.Part
}

// words says the most important of a part in one line.
func (p syncPart) words() string {
	switch {
	case p.Error != "":
		return strings.TrimSuffix(p.Error+"; "+p.Hint, "; ")
	case p.What != "":
		return p.What
	case p.Result == syncNotSet:
		return "the platform says nothing about it"
	case len(p.Added)+len(p.Removed) > 0:
		return fmt.Sprintf("%s: %d added, %d removed", p.Path, len(p.Added), len(p.Removed))
	default:
		return p.Path
	}
}
