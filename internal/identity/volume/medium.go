package volume

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// entry is a regular file of a root directory.
type entry struct {
	names []string // all that it has; "" is none
	first uint32   // its first cluster or block
	size  int64
}

// reader is a file system that this package reads by itself.
type reader interface {
	list() (label string, files []entry, err error)
	// read returns the content of an entry, whose size the caller has bounded.
	read(e entry) ([]byte, error)
}

// files gives the files of a volume's root directory.
type files interface {
	// readFile returns a regular file of at most limit bytes; the error is fs.ErrNotExist where there is
	// none of that name.
	readFile(name string, limit int64) ([]byte, error)
	Close() error
}

// medium is a FAT or ISO 9660 volume.
type medium struct {
	r       reader
	closer  io.Closer
	label   string
	entries []entry
}

var errUnknown = errors.New("it is neither FAT nor ISO 9660")

// openMedium reads the root directory of a FAT or ISO 9660 volume; closer may be nil.
func openMedium(r io.ReaderAt, closer io.Closer) (*medium, error) {
	m := &medium{closer: closer}
	if i, err := openISO(r); err == nil { // first: a hybrid image has a boot sector too
		m.r = i
	} else if f, err := openFAT(r); err == nil {
		m.r = f
	} else {
		return nil, errUnknown
	}
	var err error
	m.label, m.entries, err = m.r.list()
	return m, err
}

// readFile compares names without regard to case, as both file systems do.
func (m *medium) readFile(name string, limit int64) ([]byte, error) {
	for _, e := range m.entries {
		for _, n := range e.names {
			if n == "" || !strings.EqualFold(n, name) {
				continue
			}
			if e.size > limit {
				return nil, fmt.Errorf("%s is longer than %d bytes", name, limit)
			}
			b, err := m.r.read(e)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", name, err)
			}
			return b, nil
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (m *medium) Close() error {
	if m.closer == nil {
		return nil
	}
	return m.closer.Close()
}
