package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// PutModule makes m part of the store for good: it stores image, checks that its digest is
// m.Seal, puts everything on the disk and then writes the module's record. image may be nil if
// the image is in the store as an object already. A module that is here already is replaced, as
// by one with more signatures. When it fails, the module is as it was before, or complete if only the
// last step failed; objects without a module are left to Collect.
func (s *Store) PutModule(m Module, image io.Reader) error {
	if err := s.writable(); err != nil {
		return err
	}
	m.Objects = slices.Clone(m.Objects)
	slices.SortFunc(m.Objects, compareDigests)
	m.Objects = slices.Compact(m.Objects)
	digits, err := checkModule(m)
	if err != nil {
		return fmt.Errorf("store module %s: %w", m.Name, err)
	}
	if err := s.putModule(m, digits, image); err != nil {
		return fmt.Errorf("store module %s %s: %w", m.Name, m.Version, err)
	}
	return nil
}

func (s *Store) putModule(m Module, digits string, image io.Reader) error {
	failures := s.failures.Load()
	if err := s.putImage(m.Seal, image); err != nil {
		return err
	}
	// From here on no collection may run, or objects could go between the check and the record.
	if err := s.shareLocked(); err != nil {
		return err
	}
	staged, temp, err := s.modules.MakeTemp(dirPerm, "module")
	if err != nil {
		return err
	}
	defer staged.Close()
	err = fillModule(staged, m)
	if err == nil {
		err = s.syncSince(failures)
	}
	if err == nil {
		err = s.checkObjects(append(m.Objects, m.Seal))
	}
	if err == nil {
		err = s.nameModule(temp, digits)
	}
	if err != nil {
		return errors.Join(err, s.modules.Root().RemoveAll(temp))
	}
	return nil
}

// fillModule writes the module's files.
func fillModule(dir *durable.Dir, m Module) error {
	record := moduleRecord{Module: m, Files: make(map[string]string)}
	for _, f := range moduleFiles(m) {
		record.Files[f.name] = sha256Hex(f.data)
		if err := dir.WriteLoose(f.name, f.data, recordPerm, "module"); err != nil {
			return err
		}
	}
	data, err := sealRecord(record)
	if err != nil {
		return err
	}
	return dir.WriteLoose(moduleFile, data, recordPerm, "module")
}

// checkObjects makes sure that objects are here, with fs-verity where there is fs-verity.
func (s *Store) checkObjects(digests []fsverity.Digest) error {
	for _, d := range digests {
		if !s.HasObject(d) {
			return s.objectError("find", d, fs.ErrNotExist)
		}
	}
	if s.Verity() == nil {
		return s.EnableVerity(context.Background(), digests)
	}
	return nil
}

// nameModule is the commit: from here on the module is there.
func (s *Store) nameModule(temp, digits string) error {
	err := s.modules.RenameNew(temp, digits, "module")
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := s.modules.Exchange(temp, digits, "module-swap"); err != nil {
		return err
	}
	return s.modules.Step("module-swap:remove", func() error { return s.modules.Root().RemoveAll(temp) })
}

// putImage stores an image that must have the digest want.
func (s *Store) putImage(want fsverity.Digest, image io.Reader) error {
	if image == nil {
		if !s.HasObject(want) {
			return s.objectError("find image", want, fs.ErrNotExist)
		}
		return nil
	}
	w, err := s.NewObject(0)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := io.Copy(w, image); err != nil {
		return fmt.Errorf("store image %s: %w", want, err)
	}
	_, _, err = w.commit(want)
	return err
}

// namedFile is a file of a module beside its record.
type namedFile struct {
	name string
	data []byte
}

func moduleFiles(m Module) []namedFile {
	files := []namedFile{{manifestFile, m.Manifest}, {configFile, m.Config}, {objectsFile, formatObjects(m.Objects)}}
	for i, b := range m.Bundles {
		files = append(files, namedFile{bundleFile(i), b})
	}
	return files
}
