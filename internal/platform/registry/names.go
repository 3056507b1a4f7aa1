package registry

import (
	"net/http"
	"regexp"
	"strings"
)

// The grammar of the distribution specification 1.1, "Pulling manifests", and of the image
// specification, "Digests". Both algorithms that it registers are served; modules have SHA-256.
var (
	namePattern   = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern    = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	digestPattern = regexp.MustCompile(`^sha256:[a-f0-9]{64}$`)
	longPattern   = regexp.MustCompile(`^sha512:[a-f0-9]{128}$`)
)

// maxName is the longest name of a repository in bytes.
const maxName = 255

// ValidRepository reports whether name is a repository's name.
func ValidRepository(name string) bool { return len(name) <= maxName && namePattern.MatchString(name) }

// ValidDigest reports whether s is a SHA-256 digest, "sha256:" and 64 lower-case hexadecimal digits.
func ValidDigest(s string) bool { return digestPattern.MatchString(s) }

// served reports whether s is a digest that content may lie under.
func served(s string) bool { return digestPattern.MatchString(s) || longPattern.MatchString(s) }

// wantDigest is the grammar of digests for who got it wrong.
const wantDigest = "want sha256: and 64, or sha512: and 128 lower-case hexadecimal digits"

// kind is what a path names.
type kind int

const (
	ping kind = iota
	catalog
	tags
	manifest
	blob
	startUpload
	upload
	referrers
)

// target is a parsed path.
type target struct {
	kind       kind
	repository string
	// reference is a tag or a digest for manifest, a digest for blob and referrers, an ID for upload.
	reference string
}

// parsePath reads what follows Root. The name of a repository may hold any word, so that a path
// is read from its end.
func parsePath(path string) (target, error) {
	switch path {
	case "":
		return target{kind: ping}, nil
	case "_catalog":
		return target{kind: catalog}, nil
	}
	parts := strings.Split(path, "/")
	n := len(parts)
	t := target{reference: parts[n-1]}
	name := n - 2
	switch {
	case n >= 4 && parts[n-3] == "blobs" && parts[n-2] == "uploads":
		t.kind, name = upload, n-3
		if t.reference == "" {
			t.kind = startUpload
		}
	case n >= 3 && parts[n-2] == "blobs" && t.reference == "uploads":
		// The specification has a slash at the end; some clients leave it out.
		t.kind = startUpload
	case n >= 3 && parts[n-2] == "tags" && t.reference == "list":
		t.kind = tags
	case n >= 3 && parts[n-2] == "manifests":
		t.kind = manifest
	case n >= 3 && parts[n-2] == "blobs":
		t.kind = blob
	case n >= 3 && parts[n-2] == "referrers":
		t.kind = referrers
	default:
		return target{}, refuse(http.StatusNotFound, codeNameUnknown, "nothing is served at %s%.200s", Root, path)
	}
	t.repository = strings.Join(parts[:name], "/")
	if !ValidRepository(t.repository) {
		return target{}, refuse(http.StatusBadRequest, codeNameInvalid, "repository name %.300q: want lower-case letters, digits and separators, at most %d bytes", t.repository, maxName)
	}
	return t, t.checkReference()
}

func (t target) checkReference() error {
	switch {
	case t.kind == manifest && tagPattern.MatchString(t.reference), t.kind == tags, t.kind == upload, t.kind == startUpload:
		return nil
	case served(t.reference):
		return nil
	case t.kind == manifest && !strings.Contains(t.reference, ":"):
		return refuse(http.StatusBadRequest, codeManifestInvalid, "tag %.200q: want 1 to 128 letters, digits, dots, hyphens and underscores", t.reference)
	default:
		return refuse(http.StatusBadRequest, codeDigestInvalid, "digest %.200q: %s", t.reference, wantDigest)
	}
}
