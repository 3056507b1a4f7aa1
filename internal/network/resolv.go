package network

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// resolvConf is the text of a resolver's configuration, "" where no server is known. Resolvers look at
// three servers and 256 bytes of domains, so no more is written. Everything in s is validated.
func resolvConf(s State) string {
	if len(s.DNS) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("# Written by powernode-agent: what the kernel command line and the network's servers say.\n")
	for i, a := range s.DNS {
		if i == 3 {
			break
		}
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	line := "search"
	for _, d := range s.Search {
		if len(line)+1+len(d) > 256 {
			break
		}
		line += " " + d
	}
	if line != "search" {
		b.WriteString(line + "\n")
	}
	return b.String()
}

// writeResolvConf replaces the file at once, so that no look-up sees half of it. It is of this boot
// only, and needn't survive a power cut.
func writeResolvConf(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".resolv.conf-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Chmod(fs.FileMode(0o644))
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
