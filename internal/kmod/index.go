package kmod

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// The limits of what depmod's text files may hold. A distribution's kernel has some 5000 modules and
// 30000 aliases, its largest file 2 MiB; its longest line, a driver that needs many, 4 KiB.
const (
	indexMax = 32 << 20
	lineMax  = 64 << 10
)

// index is what depmod(8) wrote about the modules of one kernel, in its text files.
type index struct {
	modules map[string]module   // by canonical name
	builtin map[string]bool     // canonical names
	soft    map[string][]string // softdep's "pre:" by canonical name
	aliases aliases
}

// module is one line of modules.dep.
type module struct {
	name string
	path string   // of the file, below the modules directory
	deps []string // paths of all that it needs, directly or not; the last is to be loaded first
}

// canonical returns the name that the kernel uses: '-' and '_' are the same to it.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// nameOf returns the canonical name of the module in a file: its base name up to ".ko".
func nameOf(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return canonical(name)
}

// readIndex reads the files of a modules directory. One that isn't there is empty: a kernel without
// loadable modules has no modules.dep, a minimal initramfs no modules.alias.
func readIndex(dir *os.Root) (*index, error) {
	x := &index{}
	for _, file := range []struct {
		name  string
		parse func(io.Reader) error
	}{
		{"modules.dep", func(r io.Reader) (err error) { x.modules, err = parseDep(r); return }},
		{"modules.builtin", func(r io.Reader) (err error) { x.builtin, err = parseBuiltin(r); return }},
		{"modules.softdep", func(r io.Reader) (err error) { x.soft, err = parseSoftdep(r); return }},
		{"modules.alias", func(r io.Reader) (err error) { x.aliases, err = parseAliases(r); return }},
	} {
		f, err := dir.Open(file.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = file.parse(f)
			f.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path.Join(dir.Name(), file.name), err)
		}
	}
	return x, nil
}

// lines calls do with each line that is neither empty nor a comment.
func lines(r io.Reader, do func(line string) error) error {
	limited := &io.LimitedReader{R: r, N: indexMax + 1}
	s := bufio.NewScanner(limited)
	s.Buffer(make([]byte, 0, 4096), lineMax)
	for s.Scan() {
		line := bytes.TrimSpace(s.Bytes())
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if err := do(string(line)); err != nil {
			return err
		}
	}
	if err := s.Err(); err != nil {
		return err
	}
	if limited.N <= 0 {
		return fmt.Errorf("it is larger than %d MiB", indexMax>>20)
	}
	return nil
}

// parseDep reads modules.dep: "file: file file ...".
func parseDep(r io.Reader) (map[string]module, error) {
	modules := map[string]module{}
	err := lines(r, func(line string) error {
		file, rest, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("the line %.80q has no colon", line)
		}
		m := module{name: nameOf(file), path: file, deps: strings.Fields(rest)}
		for _, p := range append([]string{file}, m.deps...) {
			if !filepath.IsLocal(p) {
				return fmt.Errorf("%.80q leads out of the modules directory", p)
			}
		}
		modules[m.name] = m
		return nil
	})
	return modules, err
}

// parseBuiltin reads modules.builtin: the files that the modules would be in.
func parseBuiltin(r io.Reader) (map[string]bool, error) {
	builtin := map[string]bool{}
	err := lines(r, func(line string) error {
		builtin[nameOf(line)] = true
		return nil
	})
	return builtin, err
}

// parseSoftdep reads the "pre:" part of modules.softdep: "softdep name pre: a b post: c". These are
// modules that one uses if they are there, such as the implementations of a checksum.
func parseSoftdep(r io.Reader) (map[string][]string, error) {
	soft := map[string][]string{}
	err := lines(r, func(line string) error {
		words := strings.Fields(line)
		if len(words) < 3 || words[0] != "softdep" {
			return nil
		}
		name, pre := canonical(words[1]), false
		for _, w := range words[2:] {
			switch {
			case strings.HasSuffix(w, ":"):
				pre = w == "pre:"
			case pre:
				soft[name] = append(soft[name], w)
			}
		}
		return nil
	})
	return soft, err
}

// resolve returns the modules that a name stands for: itself, or those with such an alias. known is
// false where nobody has heard of it; no modules and known means that it is built in.
func (x *index) resolve(name string) (modules []module, known bool) {
	c := canonical(name)
	if m, ok := x.modules[c]; ok {
		return []module{m}, true
	}
	if x.builtin[c] {
		return nil, true
	}
	for _, target := range x.aliases.match(name) {
		if m, ok := x.modules[target]; ok {
			modules = append(modules, m)
		}
		known = known || x.builtin[target]
	}
	return modules, known || len(modules) > 0
}
