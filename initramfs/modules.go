package initramfs

import (
	"bufio"
	_ "embed" // the list of modules is a file for others too
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed modules
var modulesText string

// DefaultModules returns the kernel modules that an initramfs gets where the kernel has them as
// modules. dracut and initramfs-tools take the same from the file.
func DefaultModules() []string {
	var names []string
	for line := range strings.Lines(modulesText) {
		if !strings.HasPrefix(line, "#") {
			names = append(names, strings.Fields(line)...)
		}
	}
	return names
}

// moduleName returns the name of the module in a file: dashes and underscores are the same to the
// kernel, and the file may be compressed.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// index is what depmod writes about a kernel's modules.
type index struct {
	// files are modules.dep's: each module's file, and the files of those that it needs, all of
	// them, the last needed first to be loaded.
	files map[string][]string
	// byName finds a module's file, builtin holds the names of those in the kernel itself.
	byName  map[string]string
	builtin map[string]bool
}

// readIndex reads modules.dep and modules.builtin (modules.dep(5)).
func readIndex(dir string) (*index, error) {
	x := &index{files: make(map[string][]string), byName: make(map[string]string), builtin: make(map[string]bool)}
	err := eachLine(filepath.Join(dir, "modules.dep"), func(line string) error {
		file, needs, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("modules.dep of %s: a line without a colon: %.100q", dir, line)
		}
		x.files[file] = strings.Fields(needs)
		x.byName[moduleName(file)] = file
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w (depmod makes it)", err)
	}
	return x, eachLine(filepath.Join(dir, "modules.builtin"), func(line string) error {
		x.builtin[moduleName(line)] = true
		return nil
	})
}

// choose returns the files of the named modules, and the names that the kernel has nothing for.
func (x *index) choose(names []string) (files, missing []string) {
	for _, name := range names {
		name = moduleName(name)
		if file, ok := x.byName[name]; ok {
			files = append(files, file)
		} else if !x.builtin[name] {
			missing = append(missing, name)
		}
	}
	return files, missing
}

// closure returns these modules and all that they need, sorted.
func (x *index) closure(files []string) []string {
	all := slices.Clone(files)
	for _, file := range files {
		all = append(all, x.files[file]...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// depText returns modules.dep of these modules only.
func (x *index) depText(files []string) string {
	var b strings.Builder
	for _, file := range files {
		b.WriteString(file + ":")
		for _, need := range x.files[file] {
			b.WriteString(" " + need)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// subset returns the lines of an index that are about these modules: `alias PATTERN MODULE` and
// `softdep MODULE ...`. Without the file there are none.
func subset(path string, names []string) (string, error) {
	wanted := make(map[string]bool, len(names))
	for _, name := range names {
		wanted[name] = true
	}
	var b strings.Builder
	err := eachLine(path, func(line string) error {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			return nil
		}
		name := fields[1]
		if fields[0] == "alias" {
			name = fields[len(fields)-1]
		}
		if wanted[moduleName(name)] {
			b.WriteString(line + "\n")
		}
		return nil
	})
	if os.IsNotExist(err) {
		err = nil
	}
	return b.String(), err
}

func eachLine(path string, do func(line string) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if line := lines.Text(); line != "" && !strings.HasPrefix(line, "#") {
			if err := do(line); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}
