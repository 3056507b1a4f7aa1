package store

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// Room is what the file system of a store has left.
type Room struct {
	// TotalBytes is what its users can have of it, AvailableBytes what is free of that.
	TotalBytes, AvailableBytes int64
	// TotalFiles and FreeFiles count inodes; both are 0 where there is no limit, as on btrfs.
	TotalFiles, FreeFiles int64
}

// Room asks the file system that the objects lie on, by statfs(2).
func (s *Store) Room() (Room, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(s.objects.File().Fd()), &st); err != nil {
		return Room{}, &fs.PathError{Op: "statfs", Path: s.objects.Path(), Err: err}
	}
	size := st.Frsize
	if size == 0 {
		size = st.Bsize
	}
	return Room{
		TotalBytes: int64(st.Blocks-st.Bfree+st.Bavail) * size, AvailableBytes: int64(st.Bavail) * size,
		TotalFiles: int64(st.Files), FreeFiles: int64(st.Ffree),
	}, nil
}

// allocated returns the bytes that a file takes on the disk and would give back: stat(2) counts blocks of 512 bytes,
// those of fs-verity's hash tree too on ext4. It is 0 for a file that isn't there or that has another name.
func allocated(dir *os.File, path string) int64 {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), path, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		return 0
	}
	return st.Blocks * 512
}

// ModuleBytes returns the bytes that a module's record takes on the disk, with the files beside it and without
// its objects.
func (s *Store) ModuleBytes(manifestDigest string) int64 {
	digits, err := parseSHA256(manifestDigest)
	if err != nil {
		return 0
	}
	dir, err := s.modules.Sub(digits)
	if err != nil {
		return 0
	}
	defer dir.Close()
	sum := allocated(s.modules.File(), digits)
	names, _ := dir.Names() // what can't be listed counts as nothing
	for _, name := range names {
		sum += allocated(dir.File(), name)
	}
	return sum
}

// GenerationBytes returns the bytes that a generation's record and its side records take on the disk.
func (s *Store) GenerationBytes(n uint64) int64 {
	sum := allocated(s.generations.File(), generationFile(n))
	for _, kind := range sideKinds {
		sum += allocated(s.generations.File(), sideFile(n, kind))
	}
	return sum
}

// PartialFile is a download that was cut off, or is under way.
type PartialFile struct {
	Digest   string    // of the blob, "sha256:…"
	Bytes    int64     // on the disk
	Modified time.Time // when bytes came last
}

// Partials returns the partial downloads.
func (s *Store) Partials() ([]PartialFile, error) {
	dir := s.partial
	if dir == nil { // a store that is only read has it closed
		var err error
		if dir, err = s.dir.Sub("partial"); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		defer dir.Close()
	}
	return partialsIn(dir)
}

func partialsIn(dir *durable.Dir) ([]PartialFile, error) {
	names, err := dir.Names()
	if err != nil {
		return nil, err
	}
	var partials []PartialFile
	for _, name := range names {
		info, err := dir.Root().Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // complete meanwhile
		case err != nil:
			return nil, err
		case len(name) == 64 && isHex(name) && info.Mode().IsRegular():
			partials = append(partials, PartialFile{Digest: "sha256:" + name, Bytes: allocated(dir.File(), name), Modified: info.ModTime()})
		}
	}
	return partials, nil
}

// RemovePartial removes a partial download to which nothing was written since before, and reports whether it did: one
// that somebody has open, or that is newer, or gone, is left.
func (s *Store) RemovePartial(digest string, before time.Time) (bool, error) {
	if err := s.writable(); err != nil {
		return false, err
	}
	name, err := parseSHA256(digest)
	if err != nil {
		return false, err
	}
	file, err := s.partial.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, s.partialError("open", name, err)
	}
	p := &Partial{s: s, name: name, file: file}
	if err := p.lock(); err != nil {
		p.file.Close()
		if fault.KindOf(err) == fault.Retry {
			return false, nil // in use
		}
		return false, err
	}
	info, err := p.file.Stat()
	if err != nil || !info.ModTime().Before(before) {
		return false, errors.Join(err, p.Close())
	}
	return true, p.Drop()
}
