package services

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

func readRecord(run, dir, unit string, into any) error {
	root, err := os.OpenRoot(run)
	if err != nil {
		return err
	}
	defer root.Close()
	data, err := readWhole(root, path.Join(dir, unit+".json"), recordMax)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// writeRecord writes a file at once whole, into a directory of /run, where nothing has to outlive a power cut.
func writeRecord(run, dir, unit string, record any) error {
	data, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(run)
	if err != nil {
		return err
	}
	defer root.Close()
	return writeWhole(root, path.Join(dir, unit+".json"), append(data, '\n'))
}

// writeWhole replaces a file by rename, so that nobody reads half of it.
func writeWhole(root *os.Root, name string, data []byte) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	temp := path.Join(path.Dir(name), ".new-"+path.Base(name))
	if err := root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.WriteFile(temp, data, 0o644); err != nil {
		return err
	}
	// Whatever the umask is.
	if err := root.Chmod(temp, 0o644); err != nil {
		return err
	}
	return root.Rename(temp, name)
}

// readWhole reads a regular file of at most limit bytes. A FIFO isn't waited for.
func readWhole(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s isn't a regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return data, err
}
