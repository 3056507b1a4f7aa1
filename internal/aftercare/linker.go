package aftercare

import (
	"path"
	"regexp"
	"strings"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/tree"
)

// linkerConfig is where ldconfig learns of directories (ldconfig(8)).
const (
	linkerConfig    = "/etc/ld.so.conf"
	linkerConfigDir = "/etc/ld.so.conf.d"
)

// linkerFiles bounds how many files of configuration are read, so that one that includes itself has an end.
const linkerFiles = 200

// loaderDirs are the directories that the loader looks into without a cache: those of ld.so(8), and the ones of the
// architecture, by its GNU triplet, as Debian's has them.
var loaderDirs = regexp.MustCompile(`^(/usr)?/lib(64|32|x32)?(/[a-z0-9_]+-linux-[a-z0-9]+)?$`)

// linkerCache adds ldconfig where the loader wouldn't find the libraries that came, or would find ones that another
// has come before. A library in a directory that it looks into by itself is found without.
func (c *change) linkerCache(p *Plan) {
	var why reasons
	dirs := c.cachedDirs(c.From)
	for dir := range c.cachedDirs(c.To) {
		dirs[dir] = true
	}
	for _, e := range c.entries {
		_, inDir := below(e.Path, linkerConfigDir)
		inDir = inDir && strings.HasSuffix(e.Path, ".conf")
		switch {
		case e.Path == linkerConfig || inDir:
			if len(dirs) > 0 {
				why.add("%s is %s", e.Path, e.Kind)
			}
		case dirs[path.Dir(e.Path)] && isLibrary(path.Base(e.Path)) && (e.Kind != difference.Changed || e.What >= difference.Content):
			why.add("%s is %s", e.Path, e.Kind)
		}
	}
	// What it wrote here before hides a cache that the image brings.
	if _, differs := c.Difference.Entry(LinkerCache); differs && c.local(LinkerCache) {
		why.add("%s was made here, and the image has another one", LinkerCache)
	}
	if len(why) > 0 {
		c.run(p, linkerProgram, "libraries in directories of "+linkerConfig+" may not be found", why)
	}
}

// isLibrary reports whether ldconfig takes a file of that name for a library (ldconfig(8)).
func isLibrary(name string) bool {
	return (strings.HasPrefix(name, "lib") || strings.HasPrefix(name, "ld-")) && (strings.HasSuffix(name, ".so") || strings.Contains(name, ".so."))
}

// cachedDirs returns the directories, as they are without symlinks, that the loader knows only through its cache.
func (c *change) cachedDirs(root *tree.Node) map[string]bool {
	dirs := make(map[string]bool)
	read := 0
	var file func(name string)
	file = func(name string) {
		if read++; read > linkerFiles {
			return
		}
		_, n := resolve(root, name)
		text, err := c.read(n)
		if err != nil {
			return
		}
		for line := range strings.Lines(string(text)) {
			line, _, _ = strings.Cut(line, "#")
			fields := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == ',' || r == ':' })
			switch {
			case len(fields) == 0 || fields[0] == "hwcap":
			case fields[0] == "include":
				for _, pattern := range fields[1:] {
					for _, included := range match(root, pattern) {
						file(included)
					}
				}
			default:
				for _, dir := range fields {
					dir, _, _ = strings.Cut(dir, "=")
					if at, n := resolve(root, dir); n != nil && n.Kind == tree.Directory && !loaderDirs.MatchString(at) {
						dirs[at] = true
					}
				}
			}
		}
	}
	file(linkerConfig)
	return dirs
}

// match returns the files that an include line means; only its last part may be a pattern.
func match(root *tree.Node, pattern string) []string {
	if !strings.HasPrefix(pattern, "/") {
		pattern = path.Join(path.Dir(linkerConfig), pattern)
	}
	at, dir := resolve(root, path.Dir(pattern))
	if dir == nil {
		return nil
	}
	var found []string
	for name := range dir.Entries() {
		if ok, err := path.Match(path.Base(pattern), name); ok && err == nil {
			found = append(found, path.Join(at, name))
		}
	}
	return found
}

// needsCache reports whether the root has libraries that the loader finds only through a cache, and brings none.
func (c *change) needsCache() bool {
	if _, cache := resolve(c.To, LinkerCache); cache != nil {
		return false
	}
	for dir := range c.cachedDirs(c.To) {
		_, n := resolve(c.To, dir)
		for name := range n.Unordered() {
			if isLibrary(name) {
				return true
			}
		}
	}
	return false
}
