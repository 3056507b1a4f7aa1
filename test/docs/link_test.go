package docs

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/oracle"
)

var linkForm = regexp.MustCompile(`\]\(([^()\s]+)\)`)

// TestLinks: every link inside the repository leads to a file or directory that exists, and to a
// heading in it if it names one.
func TestLinks(t *testing.T) {
	all := pages(t)
	byPath := make(map[string]page, len(all))
	for _, p := range all {
		byPath[p.path] = p
	}
	checked := 0
	for _, p := range all {
		for i, line := range p.prose {
			for _, m := range linkForm.FindAllStringSubmatch(codeForm.ReplaceAllString(line, ""), -1) {
				if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
					continue
				}
				checked++
				file, heading, _ := strings.Cut(m[1], "#")
				to := p.path
				if file != "" {
					to = path.Join(path.Dir(p.path), file)
				}
				if _, err := os.Stat(filepath.Join(oracle.Root(t), to)); err != nil {
					t.Errorf("%s:%d: %s leads nowhere: %v", p.path, i+1, m[1], err)
				} else if heading != "" && !byPath[to].anchors[heading] {
					t.Errorf("%s:%d: %s has no heading #%s", p.path, i+1, to, heading)
				}
			}
		}
	}
	if checked < 20 {
		t.Errorf("only %d links found", checked)
	}
}

// inRepository matches what looks like a path of the repository.
var inRepository = regexp.MustCompile(`^(\./)?(bench|cmd|docs|examples|internal|packaging|scripts|test)/[\w./*-]*$`)

// TestPaths: every path of the repository that a page names in code exists.
func TestPaths(t *testing.T) {
	for _, p := range pages(t) {
		for i, line := range p.prose {
			for _, span := range codeForm.FindAllString(line, -1) {
				name := strings.Trim(span, "`")
				if !inRepository.MatchString(name) {
					continue
				}
				found, err := filepath.Glob(filepath.Join(oracle.Root(t), name))
				if err != nil || len(found) == 0 {
					t.Errorf("%s:%d: there is no %s (%v)", p.path, i+1, name, err)
				}
			}
		}
	}
}

// TestMakeTargets: every "make TARGET" is a target of the Makefile.
func TestMakeTargets(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(oracle.Root(t), "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	targets := regexp.MustCompile(`(?m)^([a-z]+):`).FindAllStringSubmatch(string(text), -1)
	known := make(map[string]bool)
	for _, m := range targets {
		known[m[1]] = true
	}
	use := regexp.MustCompile(`\bmake ([a-z]+)\b`)
	for _, p := range pages(t) {
		var code []string
		for _, b := range p.blocks {
			code = append(code, b.text)
		}
		for _, line := range p.prose {
			code = append(code, codeForm.FindAllString(line, -1)...)
		}
		for _, m := range use.FindAllStringSubmatch(strings.Join(code, "\n"), -1) {
			if !known[m[1]] {
				t.Errorf("%s: the Makefile has no target %s", p.path, m[1])
			}
		}
	}
}
