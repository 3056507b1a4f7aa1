package ociimage

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/fault"
)

// AnyArchitecture is what an image's config or index says in place of an architecture when the
// module holds nothing that a processor runs. The word is Debian's.
const AnyArchitecture = "all"

// fits reports whether an image for have runs on a node of arch; "" asks for nothing.
func fits(arch, have string) bool {
	return arch == "" || have == arch || have == AnyArchitecture
}

// choose returns the index's manifest for arch. A manifest for exactly arch goes before one for
// any; among equals the first wins, as the image specification says.
func choose(index []byte, sum digest.Digest, arch string) (ocispec.Descriptor, error) {
	var doc ocispec.Index
	if err := json.Unmarshal(index, &doc); err != nil {
		return ocispec.Descriptor{}, malformedDocument("index", sum, err)
	}
	var found *ocispec.Descriptor
	var have []string
	for i := range doc.Manifests {
		d := &doc.Manifests[i]
		if isIndexType(d.MediaType) || d.Platform == nil || d.Platform.OS != "linux" || d.ArtifactType != "" {
			continue // nested indexes, and what builders attach, such as docker's attestations
		}
		if err := checkDescriptor(*d, documentMax); err != nil {
			return ocispec.Descriptor{}, malformedDocument("index", sum, err)
		}
		have = append(have, d.Platform.Architecture)
		if fits(arch, d.Platform.Architecture) && (found == nil || (found.Platform.Architecture != arch && d.Platform.Architecture == arch)) {
			found = d
		}
	}
	switch {
	case found == nil:
		return ocispec.Descriptor{}, otherArchitecture(sum, arch, have)
	case arch == "" && len(have) > 1:
		return ocispec.Descriptor{}, fault.New(fault.Refuse, fault.Input, "say for which architecture",
			"index %s has images for %s", sum, list(have))
	}
	return *found, nil
}

// otherArchitecture says that an image is for other processors than the node's.
func otherArchitecture(sum digest.Digest, arch string, have []string) error {
	if arch == "" {
		arch = "Linux"
	}
	return fault.New(fault.Refuse, fault.Input, "publish the module for "+arch+", or assign another one",
		"image %s is for another architecture: for %s, not for %s", sum, list(have), arch)
}

func list(have []string) string {
	slices.Sort(have)
	have = slices.Compact(have)
	for i, s := range have {
		if s == "" {
			have[i] = "an unnamed architecture"
		}
	}
	if len(have) == 0 {
		return "no Linux architecture"
	}
	return strings.Join(have, ", ")
}
