package initramfs

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// File types of a mode, from stat(2).
const (
	modeDirectory  = 0o040000
	modeCharDevice = 0o020000
	modeRegular    = 0o100000
)

// entry is a file of an archive. Its content is that of the file at source, or text.
type entry struct {
	mode         uint32
	major, minor uint32
	source       string
	text         string
}

// archive is a cpio archive in the making, by path without a leading slash.
type archive struct{ entries map[string]entry }

func newArchive() *archive { return &archive{entries: make(map[string]entry)} }

// dir adds a directory and those above it.
func (a *archive) dir(name string) {
	for name != "." && name != "" {
		if _, ok := a.entries[name]; ok {
			return
		}
		a.entries[name] = entry{mode: modeDirectory | 0o755}
		name = path.Dir(name)
	}
}

func (a *archive) add(name string, e entry) {
	a.dir(path.Dir(name))
	a.entries[name] = e
}

// file adds a regular file with the content of the host's file at source.
func (a *archive) file(name, source string, perm uint32) {
	a.add(name, entry{mode: modeRegular | perm, source: source})
}

// text adds a regular file with this content.
func (a *archive) text(name, content string) {
	a.add(name, entry{mode: modeRegular | 0o644, text: content})
}

// sizeBelow returns the size of the contents below a directory.
func (a *archive) sizeBelow(dir string) int64 {
	var sum int64
	for name, e := range a.entries {
		if !strings.HasPrefix(name, dir+"/") {
			continue
		}
		sum += int64(len(e.text))
		if info, err := os.Stat(e.source); err == nil && e.source != "" {
			sum += info.Size()
		}
	}
	return sum
}

// write writes the archive. Everything belongs to root and has the time 0; a directory comes
// before what is in it, because the order is that of the names.
func (a *archive) write(w io.Writer) error {
	for i, name := range slices.Sorted(maps.Keys(a.entries)) {
		if err := a.entries[name].write(w, name, uint32(i+1)); err != nil {
			return err
		}
	}
	return entry{}.write(w, "TRAILER!!!", 0)
}

func (e entry) write(w io.Writer, name string, inode uint32) error {
	content, size := io.Reader(strings.NewReader(e.text)), int64(len(e.text))
	if e.source != "" {
		f, err := os.Open(e.source)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() || info.Size() >= 1<<32 {
			return fmt.Errorf("%s: want a regular file below 4 GiB", e.source)
		}
		content, size = f, info.Size()
	}
	links := uint32(1)
	if e.mode&modeDirectory == modeDirectory && e.mode&modeRegular != modeRegular {
		links = 2
	}
	// ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor,
	// namesize, check
	header := "070701"
	for _, field := range []uint32{inode, e.mode, 0, 0, links, 0, uint32(size), 0, 0, e.major, e.minor, uint32(len(name) + 1), 0} {
		header += fmt.Sprintf("%08X", field)
	}
	header += name + "\x00"
	if _, err := io.WriteString(w, header+padding(len(header))); err != nil {
		return err
	}
	// A file that grows meanwhile must not shift what follows; one that shrinks is an error.
	if _, err := io.CopyN(w, content, size); err != nil {
		return fmt.Errorf("%s: %w", e.source, err)
	}
	_, err := io.WriteString(w, padding(int(size%4)))
	return err
}

// padding fills n bytes up to a multiple of four.
func padding(n int) string { return "\x00\x00\x00"[:(4-n%4)%4] }
