package durable

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// ErrTooLarge says that a file holds more than its reader accepts.
var ErrTooLarge = errors.New("file too large")

// Open opens a regular file for reading. A symbolic link, a FIFO or anything else under that name
// is an error.
func (d *Dir) Open(name string) (*os.File, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return openRegular(d.file, name, d.path+"/"+name)
}

// openRegular opens a path relative to dir, without following a link at its end.
func openRegular(dir *os.File, path, shown string) (*os.File, error) {
	// Without O_NONBLOCK the open of a FIFO would wait for its writer.
	fd, err := unix.Openat(int(dir.Fd()), path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: shown, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "stat", Path: shown, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "open", Path: shown, Err: errors.New("not a regular file")}
	}
	return os.NewFile(uintptr(fd), shown), nil
}

// ReadFile returns what a regular file of at most limit bytes holds; a longer one gives an error
// that wraps ErrTooLarge, before it is read.
func (d *Dir) ReadFile(name string, limit int64) ([]byte, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readBounded(f, limit)
	if err != nil {
		return nil, d.pathError("read", name, err)
	}
	return data, nil
}

// ReadFile is Dir.ReadFile for a caller that has no Dir.
func ReadFile(dir *os.Root, name string, limit int64) ([]byte, error) {
	file, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	d := Dir{root: dir, file: file, path: dir.Name()}
	return d.ReadFile(name, limit)
}

func readBounded(f *os.File, limit int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are accepted", ErrTooLarge, info.Size(), limit)
	}
	var buf bytes.Buffer
	buf.Grow(int(info.Size()) + bytes.MinRead)
	n, err := buf.ReadFrom(io.LimitReader(f, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("%w: grew beyond %d bytes", ErrTooLarge, limit)
	}
	return buf.Bytes(), err
}

// ReadJSON reads a file of at most limit bytes into v, as strictly as DecodeJSON.
func (d *Dir) ReadJSON(name string, limit int64, v any) error {
	data, err := d.ReadFile(name, limit)
	if err != nil {
		return err
	}
	if err := DecodeJSON(data, v); err != nil {
		return d.pathError("read", name, err)
	}
	return nil
}

// DecodeJSON reads one JSON value into v and refuses fields that v doesn't have and anything but
// white space after the value.
func DecodeJSON(data []byte, v any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errors.New("the JSON text is cut short")
		}
		return err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("data after the JSON value")
	}
	return nil
}

// Names returns the names of the directory's entries in byte order.
func (d *Dir) Names() ([]string, error) {
	// A descriptor of its own, since a directory has one reading position.
	f, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, &fs.PathError{Op: "list", Path: d.path, Err: err}
	}
	slices.Sort(names)
	return names, nil
}
