package aftercare

import (
	"path"
	"regexp"
	"strings"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/tree"
)

// kernelModule is the name of a kernel module's file.
var kernelModule = regexp.MustCompile(`\.ko(\.(gz|xz|zst))?$`)

const moduleIndexName = "modules.dep"

// moduleIndex adds depmod where kernel modules of the running kernel came, went or changed, and the image brings no index that
// lists those that it has.
func (c *change) moduleIndex(p *Plan) {
	if c.Kernel == "" {
		return
	}
	at, dir := resolve(c.To, "/lib/modules/"+c.Kernel)
	if dir == nil {
		return
	}
	var why reasons
	for _, e := range c.entries {
		if _, ok := below(e.Path, at); ok && kernelModule.MatchString(e.Path) && (e.Kind != difference.Changed || e.What >= difference.Content) {
			why.add("%s is %s", e.Path, e.Kind)
		}
	}
	if len(why) == 0 || !c.local(path.Join(at, moduleIndexName)) && c.indexed(dir) {
		return
	}
	c.run(p, moduleProgram, "kernel modules that came aren't found by their names", why, c.Kernel)
}

// indexed reports whether a directory of kernel modules has an index that lists just the modules there are
// (modules.dep(5)).
func (c *change) indexed(dir *tree.Node) bool {
	text, err := c.read(dir.Child(moduleIndexName))
	if err != nil {
		return false
	}
	listed := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			listed[name] = true
		}
	}
	there := 0
	for name, n := range dir.Walk() {
		if n.Kind != tree.Regular || !kernelModule.MatchString(name) {
			continue
		}
		if !listed[name] {
			return false
		}
		there++
	}
	return there == len(listed)
}

// needsIndex reports whether the root has modules of the kernel, and no index that lists them.
func (c *change) needsIndex() bool {
	_, dir := resolve(c.To, "/lib/modules/"+c.Kernel)
	return c.Kernel != "" && dir != nil && dir.Kind == tree.Directory && !c.indexed(dir)
}
