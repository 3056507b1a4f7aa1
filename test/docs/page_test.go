package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/powernode/powernode-agent/internal/oracle"
)

// page is one Markdown document of the repository.
type page struct {
	// path is relative to the repository's root.
	path   string
	blocks []block
	// prose is the text with the fenced blocks' lines left empty, so that lines keep their numbers.
	prose []string
	// anchors are what a link may name after "#".
	anchors map[string]bool
}

// block is a fenced code block.
type block struct {
	// line is that of the fence, language what stands behind it.
	line     int
	language string
	// marker is the text of the comment in the line above: "<!-- marker -->".
	marker string
	text   string
}

var (
	headingForm = regexp.MustCompile(`^#{1,6} +(.*?) *#*$`)
	commentForm = regexp.MustCompile(`^<!-- (.*) -->$`)
	codeForm    = regexp.MustCompile("`[^`]+`")
)

// pages reads every Markdown file but those of tools and builds.
func pages(t *testing.T) []page {
	t.Helper()
	root := oracle.Root(t)
	var all []page
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == ".git" || e.Name() == ".cache" || e.Name() == "dist" || e.Name() == "testdata"):
			return filepath.SkipDir
		case e.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		all = append(all, parsePage(rel, string(text)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("only %d pages found", len(all))
	}
	return all
}

func findPage(t *testing.T, path string) page {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(oracle.Root(t), path))
	if err != nil {
		t.Fatal(err)
	}
	return parsePage(path, string(text))
}

func parsePage(path, text string) page {
	p := page{path: path, anchors: make(map[string]bool)}
	seen := make(map[string]int)
	var open *block
	above := ""
	for i, line := range strings.Split(text, "\n") {
		fence := strings.HasPrefix(line, "```")
		switch {
		case fence && open != nil:
			p.blocks = append(p.blocks, *open)
			open = nil
		case fence:
			open = &block{line: i + 1, language: strings.TrimSpace(strings.TrimLeft(line, "`"))}
			if m := commentForm.FindStringSubmatch(above); m != nil {
				open.marker = m[1]
			}
		case open != nil:
			open.text += line + "\n"
		default:
			p.prose = append(p.prose, line)
			if m := headingForm.FindStringSubmatch(line); m != nil {
				p.anchors[anchor(m[1], seen)] = true
			}
			above = line
			continue
		}
		p.prose = append(p.prose, "")
		above = line
	}
	return p
}

// anchor is how the usual renderers name a heading: lower case, without punctuation, hyphens for
// spaces, a number behind it if it stands there before.
func anchor(heading string, seen map[string]int) string {
	var b strings.Builder
	for _, r := range strings.ToLower(heading) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			b.WriteRune(r)
		}
	}
	name := b.String()
	n := seen[name]
	seen[name]++
	if n > 0 {
		name += "-" + string(rune('0'+n))
	}
	return name
}

// marked returns the one block with that marker.
func (p page) marked(t *testing.T, marker string) block {
	t.Helper()
	var found []block
	for _, b := range p.blocks {
		if b.marker == marker {
			found = append(found, b)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s has %d blocks marked %q", p.path, len(found), marker)
	}
	return found[0]
}
