package signature

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sigstore/sigstore-go/pkg/bundle"
)

// The bounds of what is attached to an image.
const (
	// BundlesMax is how many signatures of one image are looked at; more are refused. It leaves
	// room for all that a pull finds in the three places where cosign puts them.
	BundlesMax = 256
	// BundleMax is the largest bundle, payload or annotation in bytes.
	BundleMax = 1 << 20
)

// The media types of the two forms in which cosign attaches a signature.
const (
	// MediaTypeBundle begins the media type of every version of a Sigstore bundle.
	MediaTypeBundle = "application/vnd.dev.sigstore.bundle"
	// MediaTypePayload is the older form's: a "simple signing" document whose signature is in
	// the annotations of its layer.
	MediaTypePayload = "application/vnd.dev.cosign.simplesigning.v1+json"
)

// Bundle is one signature as it is attached to an image, in either form. It is not to be trusted.
type Bundle struct {
	// MediaType is the layer's: MediaTypePayload, or one that begins with MediaTypeBundle.
	MediaType string `json:"mediaType"`
	// Data is the layer's content.
	Data []byte `json:"data"`
	// Annotations are the layer's; only the older form has any that count.
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Encode returns the bytes under which the signature is kept beside a module: a Sigstore bundle
// as it is, and the older form as a JSON object with the fields of Bundle.
func (b Bundle) Encode() ([]byte, error) {
	if isSigstore(b.MediaType) {
		return b.Data, nil
	}
	kept := Bundle{MediaType: b.MediaType, Data: b.Data}
	for _, name := range payloadAnnotations {
		if value, ok := b.Annotations[name]; ok {
			if kept.Annotations == nil {
				kept.Annotations = map[string]string{}
			}
			kept.Annotations[name] = value
		}
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return nil, fmt.Errorf("encode a signature: %w", err)
	}
	return text, nil
}

// DecodeBundle is the reverse of Encode. What can't be read becomes a Bundle of no known type,
// which VerifyManifest passes over as it does any other rubbish: what somebody hung on an image
// beside its good signature must not spoil that one.
func DecodeBundle(raw []byte) Bundle {
	rubbish := Bundle{Data: raw}
	var kind struct {
		MediaType string `json:"mediaType"`
	}
	// Base64 and the annotations come on top of the data.
	if len(raw) > 4*BundleMax || json.Unmarshal(raw, &kind) != nil {
		return rubbish
	}
	if isSigstore(kind.MediaType) {
		return Bundle{MediaType: kind.MediaType, Data: raw}
	}
	var b Bundle
	if kind.MediaType != MediaTypePayload || json.Unmarshal(raw, &b) != nil {
		return rubbish
	}
	return b
}

func isSigstore(mediaType string) bool { return strings.HasPrefix(mediaType, MediaTypeBundle) }

// signed is a signature in the one form that is verified.
type signed struct {
	bundle *bundle.Bundle
	// payload is the older form's document, which is what was signed then; else nil.
	payload *payload
	form    string
}

// parse turns either form into the one that is verified.
func (b Bundle) parse() (*signed, error) {
	if len(b.Data) > BundleMax {
		return nil, fmt.Errorf("it is larger than %d bytes", BundleMax)
	}
	switch {
	case isSigstore(b.MediaType):
		parsed, err := parseBundle(b.Data)
		if err != nil {
			return nil, err
		}
		return &signed{bundle: parsed, form: "Sigstore bundle"}, nil
	case b.MediaType == MediaTypePayload:
		return b.parsePayload()
	default:
		return nil, fmt.Errorf("its media type %.100q isn't known", b.MediaType)
	}
}

// parseBundle reads a Sigstore bundle (JSON, v0.1 to v0.3).
func parseBundle(text []byte) (parsed *bundle.Bundle, err error) {
	if err := checkJSON(text); err != nil {
		return nil, err
	}
	err = guarded(func() error {
		parsed = new(bundle.Bundle)
		return parsed.UnmarshalJSON(text)
	})
	if err != nil {
		var old struct {
			Signature *string `json:"base64Signature"`
		}
		if json.Unmarshal(text, &old) == nil && old.Signature != nil {
			return nil, errors.New("it is a bundle of cosign's own older format; sign with --new-bundle-format")
		}
		return nil, err
	}
	return parsed, nil
}

// guarded turns a panic into an error: the library parses and verifies hostile input, and a node
// must refuse a module that makes it stumble, not stop booting.
func guarded(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it makes the signature library fail: %v", r)
		}
	}()
	return f()
}
