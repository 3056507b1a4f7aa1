package store

import (
	"fmt"
	"time"

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
