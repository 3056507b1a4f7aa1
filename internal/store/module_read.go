package store

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// GetModule returns the module with that OCI manifest digest, with everything that was put. A
// module that isn't here gives an error that wraps fs.ErrNotExist.
func (s *Store) GetModule(manifestDigest string) (Module, error) {
	return s.getModule(manifestDigest, true)
}

// SignedModule is GetModule without the list of objects, which is by far the most of it.
func (s *Store) SignedModule(manifestDigest string) (Module, error) {
	return s.getModule(manifestDigest, false)
}

func (s *Store) getModule(manifestDigest string, withObjects bool) (Module, error) {
	digits, err := parseSHA256(manifestDigest)
	if err != nil {
		return Module{}, err
	}
	dir, record, err := s.moduleRecord(digits)
	if err != nil {
		return Module{}, err
	}
	defer dir.Close()
	m := record.Module
	if m.Manifest, err = record.file(dir, manifestFile, manifestLimit); err != nil {
		return Module{}, err
	}
	if m.Config, err = record.file(dir, configFile, configLimit); err != nil {
		return Module{}, err
	}
	for i := 0; i < bundlesLimit && record.Files[bundleFile(i)] != ""; i++ {
		b, err := record.file(dir, bundleFile(i), bundleLimit)
		if err != nil {
			return Module{}, err
		}
		m.Bundles = append(m.Bundles, b)
	}
	if withObjects {
		if m.Objects, err = record.objects(dir); err != nil {
			return Module{}, err
		}
	}
	if _, err := checkModule(m); err != nil {
		return Module{}, damaged(dir.Path(), err)
	}
	return m, nil
}

// HasModule reports whether the module's record is here. It doesn't look whether it is damaged.
func (s *Store) HasModule(manifestDigest string) bool {
	digits, err := parseSHA256(manifestDigest)
	if err != nil {
		return false
	}
	_, err = s.modules.Root().Lstat(digits + "/" + moduleFile)
	return err == nil
}

// OpenModuleImage opens the image with that seal.
func (s *Store) OpenModuleImage(seal fsverity.Digest) (*os.File, error) { return s.OpenObject(seal) }

// ListModules returns the modules that are here, by name, version and digest, without their
// manifests, configs, bundles and object lists. Damaged ones are left out and make err: the list
// is good also when err isn't nil.
func (s *Store) ListModules() ([]Module, error) {
	names, err := s.modules.Names()
	if err != nil {
		return nil, err
	}
	var (
		modules []Module
		errs    []error
	)
	for _, name := range names {
		if len(name) != 64 || !isHex(name) {
			continue
		}
		dir, record, err := s.moduleRecord(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		dir.Close()
		modules = append(modules, record.Module)
	}
	slices.SortFunc(modules, func(a, b Module) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		if c := strings.Compare(a.Version, b.Version); c != 0 {
			return c
		}
		return strings.Compare(a.ManifestDigest, b.ManifestDigest)
	})
	return modules, errors.Join(errs...)
}

// ModuleDigests returns the manifest digests of all modules that are here, damaged ones too, in order.
func (s *Store) ModuleDigests() ([]string, error) {
	names, err := s.modules.Names()
	if err != nil {
		return nil, err
	}
	var digests []string
	for _, name := range names {
		if len(name) == 64 && isHex(name) {
			digests = append(digests, "sha256:"+name)
		}
	}
	return digests, nil
}

// ModuleRecord returns a module without its manifest, config, bundles and object list, as ListModules does.
func (s *Store) ModuleRecord(manifestDigest string) (Module, error) {
	digits, err := parseSHA256(manifestDigest)
	if err != nil {
		return Module{}, err
	}
	dir, record, err := s.moduleRecord(digits)
	if err != nil {
		return Module{}, err
	}
	return record.Module, dir.Close()
}

// RemoveModule removes a module's record, as a whole or not at all. Its objects stay until
// Collect. The caller makes sure that no generation that is still wanted refers to it.
func (s *Store) RemoveModule(manifestDigest string) error {
	if err := s.writable(); err != nil {
		return err
	}
	digits, err := parseSHA256(manifestDigest)
	if err != nil {
		return err
	}
	return s.modules.RemoveTree(digits, "module")
}

// moduleRecord reads the record in a module's directory and opens the directory.
func (s *Store) moduleRecord(digits string) (*durable.Dir, moduleRecord, error) {
	dir, err := s.modules.Sub(digits)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, moduleRecord{}, fault.New(fault.Refuse, fault.General, "pull it first", "module sha256:%s isn't in the store: %w", digits, err)
	}
	if err != nil {
		return nil, moduleRecord{}, damaged(s.modules.Path()+"/"+digits, err)
	}
	record, err := s.readModules.read(dir, moduleFile)
	record.Layers = slices.Clone(record.Layers)
	if err == nil && record.ManifestDigest != "sha256:"+digits {
		err = errors.New("it is the record of " + record.ManifestDigest)
	}
	if err != nil {
		dir.Close()
		return nil, moduleRecord{}, damaged(dir.Path()+"/"+moduleFile, err)
	}
	return dir, record, nil
}

// file reads a file that the record has a checksum of.
func (r moduleRecord) file(dir *durable.Dir, name string, limit int64) ([]byte, error) {
	data, err := dir.ReadFile(name, limit)
	if err == nil && sha256Hex(data) != r.Files[name] {
		err = errors.New("the checksum doesn't match")
	}
	return data, damaged(dir.Path()+"/"+name, err)
}

func (r moduleRecord) objects(dir *durable.Dir) ([]fsverity.Digest, error) {
	data, err := r.file(dir, objectsFile, objectsLimit*objectLine)
	if err != nil {
		return nil, err
	}
	objects, err := parseObjects(data)
	return objects, damaged(dir.Path()+"/"+objectsFile, err)
}
