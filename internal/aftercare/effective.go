package aftercare

import (
	"path"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/tree"
)

// unitDirs are where systemd looks for units in a root image, the one that wins first (systemd.unit(5)). Those below
// /run aren't an image's.
var unitDirs = []string{"/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// unitFile is the file of a unit in a root.
type unitFile struct {
	// path is where it was found, without symlinks above it; "" where there is none.
	path string
	node *tree.Node
	// masked says that nothing may start the unit, local that the file isn't the image's: the change makes no difference to it.
	masked, local bool
	// alias is the name of the unit that it is another name of.
	alias string
}

func (f unitFile) exists() bool { return f.path != "" && !f.masked }

// effective returns the file that counts for a unit: its own, or its template's.
func (c *change) effective(root *tree.Node, unit string) unitFile {
	for _, name := range []string{unit, templateOf(unit)} {
		if name == "" {
			continue
		}
		if f := c.unitFile(root, name); f.path != "" || f.local {
			return f
		}
	}
	return unitFile{}
}

func (c *change) unitFile(root *tree.Node, name string) unitFile {
	for _, dir := range unitDirs {
		if c.local(path.Join(dir, name)) {
			return unitFile{path: path.Join(dir, name), local: true}
		}
		at, n := resolveParent(root, path.Join(dir, name))
		if n == nil {
			continue
		}
		if c.local(at) {
			return unitFile{path: at, local: true}
		}
		f := unitFile{path: at, node: n}
		if n.Kind == tree.Symlink {
			target := path.Join(path.Dir(at), n.Target)
			if strings.HasPrefix(n.Target, "/") {
				target = path.Clean(n.Target)
			}
			_, f.node = resolve(root, target)
			switch {
			case target == "/dev/null":
				f.masked = true
			case path.Base(target) != name && templateOf(name) != path.Base(target):
				f.alias = path.Base(target)
			case f.node == nil:
				continue // it leads nowhere
			}
		}
		// systemd takes an empty file for a mask, too.
		f.masked = f.masked || f.node != nil && f.node.Kind == tree.Regular && f.node.Size == 0
		return f
	}
	return unitFile{}
}

// dropIns returns the files that add to a unit in a root, by name; one of a name that comes later in the search path isn't
// seen.
func (c *change) dropIns(root *tree.Node, unit string) map[string]*tree.Node {
	found := make(map[string]*tree.Node)
	for _, dir := range unitDirs {
		for _, name := range dropInNames(unit) {
			at, n := resolve(root, path.Join(dir, name+".d"))
			if n == nil || n.Kind != tree.Directory {
				continue
			}
			for file := range n.Entries() {
				if _, seen := found[file]; seen || !strings.HasSuffix(file, ".conf") || c.local(path.Join(at, file)) {
					continue
				}
				_, found[file] = resolve(root, path.Join(at, file))
			}
		}
	}
	return found
}

// settings returns what the image's files say of a unit, of which a restart is needed to take effect. known is false where
// one of them can't be read.
func (c *change) settings(root *tree.Node, file unitFile, unit string) (list []setting, known bool) {
	known = true
	add := func(n *tree.Node) {
		if n == nil || n.Kind != tree.Regular {
			return
		}
		text, err := c.read(n)
		known = known && err == nil
		list = append(list, weighty(parseUnit(string(text)))...)
	}
	if !file.local {
		add(file.node)
	}
	drops := c.dropIns(root, unit)
	names := make([]string, 0, len(drops))
	for name := range drops {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		add(drops[name])
	}
	return list, known
}

// unitChanged reports whether what a running unit was started with is no longer what its files say.
func (c *change) unitChanged(unit string, from, to unitFile) bool {
	before, knownBefore := c.settings(c.From, from, unit)
	after, knownAfter := c.settings(c.To, to, unit)
	return !knownBefore || !knownAfter || !slices.Equal(before, after)
}
