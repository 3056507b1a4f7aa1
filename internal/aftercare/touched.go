package aftercare

import (
	"path"
	"strings"

	"github.com/powernode/powernode-agent/internal/difference"
)

// touched is what of systemd's files differs.
type touched struct {
	// names are the units whose own files or drop-ins differ, by the name of the file or of the drop-in's directory.
	names map[string]string
	// wanted are the units that the To image has other units want and the From image hadn't, by unit, with
	// the units that want them.
	wanted map[string][]string
	order  []string
	// whole are drop-ins for all units of a kind.
	whole []string
	// reload is why systemd has to read its units again.
	reload reasons
}

// generatorDirs and generatorInputs are what else daemon-reload reads (systemd.generator(7), and the generators that
// systemd brings), as prefixes of paths.
var (
	generatorDirs = []string{
		"/etc/systemd/system-generators", "/usr/local/lib/systemd/system-generators", "/usr/lib/systemd/system-generators", "/lib/systemd/system-generators",
	}
	generatorInputs = []string{"/etc/fstab", "/etc/crypttab", "/etc/veritytab", "/etc/init.d/", "/etc/systemd/system.conf"}
)

func (c *change) touch() *touched {
	t := &touched{names: make(map[string]string), wanted: make(map[string][]string)}
	for _, e := range c.entries {
		if isDirectory(e.From) && isDirectory(e.To) {
			continue
		}
		for _, dir := range unitDirs {
			if rest, ok := below(e.Path, dir); ok {
				t.unitPath(c, e, rest)
			}
		}
		for _, dir := range generatorDirs {
			if _, ok := below(e.Path, dir); ok {
				t.reload.add("%s is %s", e.Path, e.Kind)
			}
		}
		for _, prefix := range generatorInputs {
			if strings.HasPrefix(e.Path, prefix) {
				t.reload.add("%s is %s", e.Path, e.Kind)
			}
		}
	}
	return t
}

// unitPath notes one path below a directory of units.
func (t *touched) unitPath(c *change, e difference.Entry, rest string) {
	dir, file, nested := strings.Cut(rest, "/")
	t.note(e)
	switch {
	case !nested && isUnit(dir):
		t.names[dir] = e.Path
	case !nested:
	case strings.HasSuffix(dir, ".d"):
		owner := strings.TrimSuffix(dir, ".d")
		if !strings.Contains(owner, ".") {
			t.whole = append(t.whole, e.Path)
			break
		}
		t.names[owner] = e.Path
	default:
		by, kind := strings.TrimSuffix(dir, path.Ext(dir)), path.Ext(dir)
		if e.Kind != difference.Removed && isUnit(file) && (kind == ".wants" || kind == ".requires" || kind == ".upholds") {
			t.want(file, by)
		}
	}
}

func (t *touched) note(e difference.Entry) { t.reload.add("%s is %s", e.Path, e.Kind) }

func (t *touched) want(unit, by string) {
	if t.wanted[unit] == nil {
		t.order = append(t.order, unit)
	}
	t.wanted[unit] = append(t.wanted[unit], by)
}

// of returns the file that makes the unit one whose files differ; "" where none does.
func (t *touched) of(unit string) string {
	for _, name := range dropInNames(unit) {
		if at := t.names[name]; at != "" {
			return at
		}
	}
	return ""
}
