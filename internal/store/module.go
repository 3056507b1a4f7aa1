package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// What a module may hold.
const (
	manifestLimit = 4 << 20 // the OCI distribution specification's own limit
	configLimit   = 8 << 20
	bundleLimit   = 1 << 20
	bundlesLimit  = 64
	objectsLimit  = 1 << 20 // objects of one module
)

// Module is a module as the node keeps it. What it says was checked by whoever put it; the store
// checks only that the parts belong together and are whole.
type Module struct {
	Name       string `json:"name"`
	Version    string `json:"version"`
	Repository string `json:"repository,omitempty"` // where it was pulled from
	// ManifestDigest is the OCI manifest's digest, "sha256:…": the module's name in the store.
	ManifestDigest string `json:"manifest_digest"`
	// Seal is the digest of the module's image, which lies in the store as an object.
	Seal     fsverity.Digest `json:"seal"`
	Layers   []Layer         `json:"layers,omitempty"`
	PulledAt time.Time       `json:"pulled_at"`

	// Manifest, Config and Bundles are the registry's bytes, unchanged: OCI manifest, image
	// config, signature bundles. ListModules leaves them out.
	Manifest []byte   `json:"-"`
	Config   []byte   `json:"-"`
	Bundles  [][]byte `json:"-"`
	// Objects are the digests that the module's image refers to, sorted, each once.
	Objects []fsverity.Digest `json:"-"`
}

// Layer is a layer of a module as its OCI manifest describes it.
type Layer struct {
	MediaType string `json:"media_type"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"` // bytes, compressed
}

// moduleRecord is a Module on the disk, with the checksums of the files beside it.
type moduleRecord struct {
	Module
	Files map[string]string `json:"files"` // SHA-256 by file name
}

const moduleFile = "module.json"

// The files of a module beside its record.
const (
	manifestFile = "manifest.json"
	configFile   = "config.json"
	objectsFile  = "objects"
)

func bundleFile(i int) string { return fmt.Sprintf("bundle-%02d.json", i) }

// PutModule makes m part of the store for good: it stores image, checks that its digest is
// m.Seal, puts everything on the disk and then writes the module's record. image may be nil if
// the image is in the store as an object already. A module that is here already is replaced, as
// by one with more signatures. When it fails, no trace is left but objects that Collect removes.
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
	if err := s.putImage(m.Seal, image); err != nil {
		return err
	}
	// From here on no collection may run, or objects could go between the check and the record.
	s.linking.Lock()
	err := s.share()
	s.linking.Unlock()
	if err != nil {
		return err
	}
	for _, d := range m.Objects {
		if !s.HasObject(d) {
			return s.objectError("find", d, fs.ErrNotExist)
		}
	}
	staged, temp, err := s.modules.MakeTemp(dirPerm, "module")
	if err != nil {
		return err
	}
	defer staged.Close()
	if err := s.fillModule(staged, m); err != nil {
		return errors.Join(err, s.modules.Root().RemoveAll(temp))
	}
	if err := s.nameModule(temp, digits); err != nil {
		return errors.Join(err, s.modules.Root().RemoveAll(temp))
	}
	return nil
}

// fillModule writes the module's files and puts them, and all objects, on the disk.
func (s *Store) fillModule(dir *durable.Dir, m Module) error {
	record := moduleRecord{Module: m, Files: make(map[string]string)}
	for name, data := range moduleFiles(m) {
		record.Files[name] = sha256Hex(data)
		if err := dir.WriteLoose(name, data, recordPerm, "module"); err != nil {
			return err
		}
	}
	data, err := sealRecord(record)
	if err != nil {
		return err
	}
	if err := dir.WriteLoose(moduleFile, data, recordPerm, "module"); err != nil {
		return err
	}
	if err := s.Sync(); err != nil {
		return err
	}
	if s.Verity() != nil {
		return nil
	}
	return s.EnableVerity(context.Background(), append(m.Objects, m.Seal))
}

// nameModule is the commit: from here on the module is there.
func (s *Store) nameModule(temp, digits string) error {
	err := s.modules.RenameNew(temp, digits, "module")
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := s.modules.Exchange(temp, digits, "module"); err != nil {
		return err
	}
	return s.modules.Root().RemoveAll(temp)
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

func moduleFiles(m Module) map[string][]byte {
	files := map[string][]byte{manifestFile: m.Manifest, configFile: m.Config, objectsFile: formatObjects(m.Objects)}
	for i, b := range m.Bundles {
		files[bundleFile(i)] = b
	}
	return files
}

// checkModule checks what the store itself relies on, and returns the name of m's directory.
func checkModule(m Module) (string, error) {
	digits, err := parseSHA256(m.ManifestDigest)
	if err != nil {
		return "", err
	}
	refuse := func(format string, args ...any) (string, error) {
		return "", fault.New(fault.Refuse, fault.Verify, "", format, args...)
	}
	switch {
	case m.Name == "":
		return refuse("it has no name")
	case m.Seal.IsZero():
		return refuse("it has no seal")
	case sha256Hex(m.Manifest) != digits:
		return refuse("its manifest has digest sha256:%s, not %s", sha256Hex(m.Manifest), m.ManifestDigest)
	case len(m.Manifest) > manifestLimit:
		return refuse("a manifest of %d bytes: at most %d are kept", len(m.Manifest), manifestLimit)
	case len(m.Config) > configLimit:
		return refuse("a config of %d bytes: at most %d are kept", len(m.Config), configLimit)
	case len(m.Bundles) > bundlesLimit:
		return refuse("%d signature bundles: at most %d are kept", len(m.Bundles), bundlesLimit)
	case len(m.Objects) > objectsLimit:
		return refuse("%d objects: at most %d are kept", len(m.Objects), objectsLimit)
	}
	for _, b := range m.Bundles {
		if len(b) > bundleLimit {
			return refuse("a signature bundle of %d bytes: at most %d are kept", len(b), bundleLimit)
		}
	}
	return digits, nil
}

// GetModule returns the module with that OCI manifest digest, with everything that was put. A
// module that isn't here gives an error that wraps fs.ErrNotExist.
func (s *Store) GetModule(manifestDigest string) (Module, error) {
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
	if m.Objects, err = record.objects(dir); err != nil {
		return Module{}, err
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
	var record moduleRecord
	err = readRecord(dir, moduleFile, &record)
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
