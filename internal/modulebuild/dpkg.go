package modulebuild

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/tree"
)

// The places of dpkg's database in a tree.
const (
	dpkgStatus  = "var/lib/dpkg/status"
	dpkgStatusD = "var/lib/dpkg/status.d"
	// databaseMax bounds the text files of a system that are read whole.
	databaseMax = 64 << 20
)

// stanza is a paragraph of a Debian control file (deb822(5)).
type stanza struct {
	// text is the paragraph as it stands, with a line break at its end.
	text   string
	fields map[string]string
}

// get returns a field's value; the continuation lines follow on line breaks.
func (s stanza) get(name string) string { return s.fields[strings.ToLower(name)] }

// parseStanzas splits a control file. What isn't a field is passed over.
func parseStanzas(text string) []stanza {
	var all []stanza
	current := stanza{fields: make(map[string]string)}
	last := ""
	flush := func() {
		if len(current.fields) > 0 {
			all = append(all, current)
		}
		current, last = stanza{fields: make(map[string]string)}, ""
	}
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		switch {
		case strings.TrimSpace(line) == "":
			flush()
			continue
		case line[0] == '#':
			continue
		case line[0] == ' ' || line[0] == '\t':
			if last != "" {
				current.fields[last] += "\n" + strings.TrimPrefix(line, " ")
			}
		default:
			if key, value, ok := strings.Cut(line, ":"); ok {
				last = strings.ToLower(key)
				current.fields[last] = strings.TrimSpace(value)
			}
		}
		current.text += line + "\n"
	}
	flush()
	return all
}

// Package is a Debian package in a module.
type Package struct {
	Name         string `json:"name"`
	Version      string `json:"version"`
	Architecture string `json:"architecture"`
}

func (s stanza) pkg() Package {
	return Package{Name: s.get("Package"), Version: s.get("Version"), Architecture: s.get("Architecture")}
}

// installed returns the packages of a dpkg status file, by name and architecture. One that isn't
// wholly installed is an error.
func installed(text string) (map[string]stanza, error) {
	all := make(map[string]stanza)
	for _, s := range parseStanzas(text) {
		p := s.pkg()
		switch state := s.get("Status"); {
		case p.Name == "":
			continue
		case strings.HasSuffix(state, " installed"):
			all[p.Name+":"+p.Architecture] = s
		case strings.HasSuffix(state, " not-installed"), strings.HasSuffix(state, " config-files"):
		default:
			return nil, fault.New(fault.Broken, fault.General, "see the log for its maintainer script's messages", "package %s is not configured: dpkg says %q", p.Name, state)
		}
	}
	return all, nil
}

// added returns the packages that after has and before hasn't, or has in another version, sorted.
func added(before, after map[string]stanza) []stanza {
	var all []stanza
	for key, s := range after {
		if old, ok := before[key]; !ok || old.get("Version") != s.get("Version") {
			all = append(all, s)
		}
	}
	sortStanzas(all)
	return all
}

func sortStanzas(all []stanza) {
	slices.SortFunc(all, func(a, b stanza) int {
		return cmp.Or(strings.Compare(a.get("Package"), b.get("Package")), strings.Compare(a.get("Architecture"), b.get("Architecture")))
	})
}

// packagesOf lists the packages of stanzas.
func packagesOf(stanzas []stanza) []Package {
	packages := make([]Package, 0, len(stanzas))
	for _, s := range stanzas {
		packages = append(packages, s.pkg())
	}
	return packages
}

// statusFiles puts one file for each package into status.d, named as in Debian's info directory
// for packages of one architecture.
func (c *content) statusFiles(stanzas []stanza) {
	count := make(map[string]int)
	for _, s := range stanzas {
		count[s.get("Package")]++
	}
	for _, s := range stanzas {
		name := s.get("Package")
		if count[name] > 1 {
			name += ":" + s.get("Architecture")
		}
		c.addText(dpkgStatusD+"/"+name, s.text)
	}
}

// wholeStatus returns dpkg's status of a tree: that of its base together with the fragments that
// modules over it brought. A fragment replaces what the base says of the package.
func (c *content) wholeStatus() (string, error) {
	b, ok, err := c.read(dpkgStatus, databaseMax)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", fault.New(fault.Refuse, fault.Input, "name a module made by package_spec without a base, such as system-base, with --base first", "read the base: it has no %s, so it is no Debian system", dpkgStatus)
	}
	all := make(map[string]stanza)
	texts := []string{string(b)}
	if dir := c.root.Lookup(dpkgStatusD); dir != nil && dir.Kind == tree.Directory {
		for _, name := range dir.Names() {
			fragment, _, err := c.read(dpkgStatusD+"/"+name, databaseMax)
			if err != nil {
				return "", err
			}
			texts = append(texts, string(fragment))
		}
	}
	for _, text := range texts {
		for _, s := range parseStanzas(text) {
			all[s.get("Package")+":"+s.get("Architecture")] = s
		}
	}
	merged := make([]stanza, 0, len(all))
	for _, s := range all {
		merged = append(merged, s)
	}
	sortStanzas(merged)
	var out strings.Builder
	for _, s := range merged {
		fmt.Fprintf(&out, "%s\n", s.text)
	}
	return out.String(), nil
}
