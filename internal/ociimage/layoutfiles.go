package ociimage

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/powernode/powernode-agent/internal/fault"
)

// layoutDir is a layout in a directory. os.Root keeps symlinks in it from leading out of it.
type layoutDir struct{ *os.Root }

func (d layoutDir) open(name string) (io.ReadCloser, int64, error) {
	// A FIFO would otherwise block until somebody writes to it.
	file, err := d.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, info.Size(), nil
}

// layoutTarEntriesMax bounds the files of a layout's tar: a hundred images of a hundred layers.
const layoutTarEntriesMax = 20_000

// layoutTar is a layout in a tar: where each file's bytes are in it.
type layoutTar struct {
	file *os.File
	at   map[string]*io.SectionReader
}

func openLayoutTar(name string) (*layoutTar, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	t := &layoutTar{file: file, at: make(map[string]*io.SectionReader)}
	if err := t.scan(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return t, nil
}

// scan notes where the files are. archive/tar seeks over contents, so this reads headers only.
func (t *layoutTar) scan() error {
	info, err := t.file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is neither a directory nor a regular file")
	}
	archive := tar.NewReader(t.file)
	for range layoutTarEntriesMax {
		hdr, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return fmt.Errorf("it is not an uncompressed tar: %w", err)
		}
		if hdr.Typeflag != tar.TypeReg {
			continue
		}
		begin, err := t.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		// A sparse file's bytes aren't where they seem to be; blobs of such are simply wrong.
		size := max(0, min(hdr.Size, info.Size()-begin))
		t.at[strings.TrimPrefix(path.Clean("/"+hdr.Name), "/")] = io.NewSectionReader(t.file, begin, size)
	}
	return fault.New(fault.Refuse, fault.Input, "unpack it", "it has more than %d files", layoutTarEntriesMax)
}

func (t *layoutTar) open(name string) (io.ReadCloser, int64, error) {
	section, ok := t.at[name]
	if !ok {
		return nil, 0, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return io.NopCloser(io.NewSectionReader(section, 0, section.Size())), section.Size(), nil
}

// Close closes the tar.
func (t *layoutTar) Close() error { return t.file.Close() }
