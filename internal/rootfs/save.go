package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/powernode/powernode-agent/internal/durable"
)

// Save keeps what /etc below root ("/" on a node) has of the files that a node is recognised by:
// machine ID, host name and SSH host keys, those that changed since they were last kept, in the
// directory of record. shipped is Facts.Shipped: what is still the root image's isn't kept. The
// running system calls it now and then, and at its end.
//
// A file that isn't whole, as one that is just being written, is left for the next call. Nothing
// is ever removed: a host key that is to be forgotten must be removed from the directory "kept"
// too. The result are the names of the files that were kept anew; the error is about the disk,
// and says nothing about those.
func Save(root, stateDir string, shipped map[string]string) ([]string, error) {
	etc, err := openEtc(root, false)
	if err != nil {
		return nil, fmt.Errorf("keep files of /etc: %w", err)
	}
	defer etc.Close()
	dir, err := durable.MakeDir(filepath.Join(stateDir, keptName), 0o700, nil)
	if err != nil {
		return nil, fmt.Errorf("keep files of /etc: %w", err)
	}
	defer dir.Close()
	return saveAll(etc, dir, shipped)
}

func saveAll(etc *os.Root, dir *durable.Dir, shipped map[string]string) ([]string, error) {
	var saved []string
	var errs []error
	for _, f := range keptFilesAt(etc) {
		data, err := f.read(etc)
		if err != nil || f.check(data) != nil || sum(data) == shipped[f.name] {
			continue
		}
		there, err := dir.ReadFile(f.name, f.limit)
		if err == nil && bytes.Equal(there, data) {
			continue
		}
		if unreadable(err) {
			// It may be read again later, and then it is what the node is known by.
			errs = append(errs, fmt.Errorf("keep /etc/%s: %w", f.path(), err))
			continue
		}
		if err := dir.WriteFile(f.name, data, 0o600, "kept-"+f.name); err != nil {
			errs = append(errs, fmt.Errorf("keep /etc/%s: %w", f.path(), err))
			continue
		}
		saved = append(saved, f.name)
	}
	slices.Sort(saved)
	return saved, errors.Join(errs...)
}
