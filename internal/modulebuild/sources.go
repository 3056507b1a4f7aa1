package modulebuild

import (
	"bufio"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

// source is one line of a sources.list(5): a repository with one suite.
type source struct {
	uri, suite string
	components []string
	// signedBy is a keyring's path or a fingerprint, or an armoured key, or "".
	signedBy string
	trusted  bool
}

// suiteKind says which of a release's suites one is: "" for the release itself, "-updates",
// "-security" and so on.
func (s source) suiteKind(release string) (string, bool) {
	suite := strings.TrimSuffix(s.suite, "/updates")
	kind, ok := strings.CutPrefix(suite, release)
	if ok && suite != s.suite {
		kind = "-security"
	}
	return kind, ok
}

// line returns the one-line form for apt and mmdebstrap. keyFile is where an armoured signedBy
// was written.
func (s source) line(keyFile string) string {
	var options []string
	switch {
	case strings.Contains(s.signedBy, "\n"):
		options = append(options, "signed-by="+keyFile)
	case s.signedBy != "":
		options = append(options, "signed-by="+strings.Join(strings.Fields(s.signedBy), ","))
	}
	if s.trusted {
		options = append(options, "trusted=yes")
	}
	line := "deb "
	if len(options) > 0 {
		line += "[" + strings.Join(options, " ") + "] "
	}
	return strings.TrimSpace(line + s.uri + " " + s.suite + " " + strings.Join(s.components, " "))
}

// machine is what this machine says of its own distribution.
type machine struct {
	// etc is /etc; tests name another one.
	etc string
}

// debianSources returns the sources for a suite from those that the machine has for its own
// release: same servers, same keys, other suite.
func (m machine) debianSources(suite string) ([]source, error) {
	release, err := m.release()
	if err != nil {
		return nil, err
	}
	all, err := m.sources()
	if err != nil {
		return nil, err
	}
	var chosen []source
	for _, s := range all {
		for _, name := range []string{release, "stable", "oldstable"} {
			kind, ok := s.suiteKind(name)
			if !ok || !slices.Contains([]string{"", "-updates", "-security"}, kind) || !slices.Contains(s.components, "main") {
				continue
			}
			if kind != "" && rolling(suite) {
				continue
			}
			s.suite, s.components = suite+kind, []string{"main"}
			if !slices.ContainsFunc(chosen, func(o source) bool { return o.suite == s.suite }) {
				chosen = append(chosen, s)
			}
			break
		}
	}
	if !slices.ContainsFunc(chosen, func(s source) bool { return s.suite == suite }) {
		return nil, fault.New(fault.Refuse, fault.Input, "name a Debian mirror with --mirror", "find a mirror for Debian %s: apt on this machine has no source for %s main", suite, release)
	}
	return chosen, nil
}

// rolling reports whether a suite has neither updates nor security of its own.
func rolling(suite string) bool {
	return slices.Contains([]string{"sid", "unstable", "experimental"}, suite)
}

// release returns the code name of the Debian release that the machine runs.
func (m machine) release() (string, error) {
	b, err := os.ReadFile(filepath.Join(m.etc, "os-release"))
	if err != nil {
		b = nil // a machine without os-release is no Debian
	}
	values := make(map[string]string)
	for line := range strings.SplitSeq(string(b), "\n") {
		key, value, _ := strings.Cut(line, "=")
		values[key] = strings.Trim(value, `"'`)
	}
	if values["ID"] != "debian" || values["VERSION_CODENAME"] == "" {
		return "", fault.New(fault.Refuse, fault.Input, "name a Debian mirror with --mirror", "find a Debian mirror: this machine doesn't run a Debian release")
	}
	return values["VERSION_CODENAME"], nil
}

// sources reads sources.list and sources.list.d as apt does, in both formats.
func (m machine) sources() ([]source, error) {
	files := []string{filepath.Join(m.etc, "apt/sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		found, err := filepath.Glob(filepath.Join(m.etc, "apt/sources.list.d", pattern))
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	slices.Sort(files[1:])
	var all []source
	for _, file := range files {
		b, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read apt's sources: %w", err)
		}
		if strings.HasSuffix(file, ".sources") {
			all = append(all, parseDeb822(string(b))...)
		} else {
			all = append(all, parseOneLine(string(b))...)
		}
	}
	return all, nil
}

// parseOneLine reads the one-line format; lines that it doesn't understand are passed over.
func parseOneLine(text string) []source {
	var all []source
	for line := range strings.SplitSeq(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		var s source
		rest = strings.TrimSpace(rest)
		if options, after, found := strings.Cut(rest, "]"); found && strings.HasPrefix(rest, "[") {
			rest = after
			for option := range strings.FieldsSeq(options[1:]) {
				switch key, value, _ := strings.Cut(option, "="); key {
				case "signed-by":
					s.signedBy = strings.ReplaceAll(value, ",", " ")
				case "trusted":
					s.trusted = value == "yes"
				}
			}
		}
		if fields := strings.Fields(rest); len(fields) >= 2 {
			s.uri, s.suite, s.components = fields[0], fields[1], fields[2:]
			all = append(all, s)
		}
	}
	return all
}

// parseDeb822 reads the format of *.sources: stanzas of fields.
func parseDeb822(text string) []source {
	var all []source
	for _, stanza := range parseStanzas(text) {
		if strings.EqualFold(stanza.get("Enabled"), "no") || !slices.Contains(strings.Fields(stanza.get("Types")), "deb") {
			continue
		}
		for _, uri := range strings.Fields(stanza.get("URIs")) {
			for _, suite := range strings.Fields(stanza.get("Suites")) {
				all = append(all, source{
					uri: uri, suite: suite, components: strings.Fields(stanza.get("Components")),
					signedBy: armoured(stanza.get("Signed-By")), trusted: strings.EqualFold(stanza.get("Trusted"), "yes"),
				})
			}
		}
	}
	return all
}

// armoured turns a key in a deb822 field, whose lines are indented and whose empty lines are
// dots, back into one of its own; other values stay.
func armoured(value string) string {
	if !strings.Contains(value, "BEGIN PGP") {
		return value
	}
	var b strings.Builder
	for lines := bufio.NewScanner(strings.NewReader(value)); lines.Scan(); {
		if line := strings.TrimSpace(lines.Text()); line == "." {
			b.WriteByte('\n')
		} else if line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// mirrorSource makes a source of a mirror's URL. {snapshot} in it stands for the manifest's
// build.apt_snapshot.
func mirrorSource(mirror, suite, snapshot string) (source, error) {
	pinned := strings.ReplaceAll(mirror, "{snapshot}", snapshot)
	u, err := url.Parse(pinned)
	switch {
	case err != nil, u.Scheme == "", strings.ContainsAny(pinned, " \t\n[]#"):
		return source{}, fault.New(fault.Refuse, fault.Input, "write a URL, such as https://mirror.example/debian", "mirror %.200q is not a URL", mirror)
	case pinned != mirror && snapshot == "":
		return source{}, fault.New(fault.Refuse, fault.Input, "set build.apt_snapshot in the manifest, or take {snapshot} out", "mirror %s wants a snapshot, and the manifest pins none", mirror)
	}
	return source{uri: pinned, suite: suite, components: []string{"main"}}, nil
}
