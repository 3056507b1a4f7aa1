package ociimage

import (
	"strings"

	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/registry"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Reference says which image is meant.
type Reference struct {
	// Repository is host[:port]/path. It is empty for an image in a layout.
	Repository string
	// Tag is a name that may be moved; it counts only where there is no Digest.
	Tag string
	// Digest is the sha256 of the manifest or index.
	Digest digest.Digest
}

// ParseReference reads host[:port]/path with :tag, @sha256:<hex>, both or neither. There is no
// default registry.
func ParseReference(s string) (Reference, error) {
	invalid := func(why string) (Reference, error) {
		return Reference{}, fault.New(fault.Refuse, fault.Input, "write it as host/path:tag or host/path@sha256:<digest>",
			"image reference %.300q: %s", s, why)
	}
	name, sum, hasDigest := strings.Cut(s, "@")
	parsed, err := registry.ParseReference(name)
	if err != nil || strings.HasSuffix(name, ":") {
		return invalid("the name is not valid")
	}
	ref := Reference{Repository: parsed.Registry + "/" + parsed.Repository, Tag: parsed.Reference}
	if hasDigest {
		ref.Digest = digest.Digest(sum)
		if !validDigest(ref.Digest) {
			return invalid("the digest is not sha256: and 64 hexadecimal digits")
		}
	}
	return ref, nil
}

// String returns what ParseReference reads.
func (r Reference) String() string {
	s := r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// validDigest accepts sha256 only: it is what the seal, the signatures and every registry use.
func validDigest(d digest.Digest) bool {
	return d.Validate() == nil && d.Algorithm() == digest.SHA256
}
