package signature

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/powernode/powernode-agent/internal/fault"
)

// blobBufferMax is the largest file whose signature may be of a kind that needs the file whole in
// memory (Ed25519, and certificates with a key on P-384 or P-521).
const blobBufferMax = 256 << 20

// BlobOptions say what VerifyBlob verifies and by whom it must be signed. The fields have the
// meaning of the flags of `cosign verify-blob` whose names they have.
type BlobOptions struct {
	// Bundle is a Sigstore bundle (JSON, v0.1 to v0.3).
	Bundle []byte
	// Key is a public key in PEM. It excludes the two that follow.
	Key []byte
	// CertificateIdentity and CertificateOIDCIssuer are the exact subject and issuer of a
	// keyless signer.
	CertificateIdentity   string
	CertificateOIDCIssuer string
	// TrustedRoot is a trusted_root.json. A keyless signature can't be verified without it. With
	// a key, it makes a transparency log entry required if it names such a log.
	TrustedRoot []byte
	// Artifact is the signed file, read once as a stream. It excludes Digest.
	Artifact io.Reader
	// Digest is that of the signed file: "sha256:…".
	Digest string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// VerifyBlob verifies the signature of a plain file, or of a file known by its digest. With a
// bundle that holds an in-toto statement the file must be one of its subjects, whatever the
// statement says about it. Wrong options are a fault.Refuse in area Input, a verdict one in area
// Verify whose chain holds a Failure; a file that can't be read to its end is neither.
func VerifyBlob(options BlobOptions) (*Verified, error) {
	d, err := blobDemand(options)
	if err != nil {
		return nil, err
	}
	file := &blobReader{from: options.Artifact, left: blobBufferMax}
	read, err := blobArtifact(options, file)
	if err != nil {
		return nil, err
	}
	account, failure := verifyBlob(d, options.Bundle, read)
	switch {
	case file.err != nil:
		return nil, fault.New(fault.Refuse, fault.Input, "name a file that can be read", "verify the file: %w", file.err)
	case failure != nil:
		return nil, fault.New(fault.Refuse, fault.Verify, failure.Check.hint(), "verify the file: %w", failure)
	}
	return account, nil
}

func verifyBlob(d *demand, text []byte, read artifact) (*Verified, *Failure) {
	sig, err := Bundle{MediaType: MediaTypeBundle, Data: text}.parse()
	if err != nil {
		return nil, fail(CheckBundle, err, "the bundle is not one that can be verified")
	}
	account, failure := d.judge(sig, read)
	if failure != nil {
		return nil, fail(failure.Check, failure.cause, "its signature is refused: %s", failure.text)
	}
	account.pass(CheckSubject, "signs this file")
	return account.complete()
}

// blobDemand reads who must have signed.
func blobDemand(o BlobOptions) (*demand, error) {
	refuse := func(hint, format string, args ...any) error {
		return fault.New(fault.Refuse, fault.Input, hint, format, args...)
	}
	d := &demand{who: "the command", now: time.Now()}
	if o.Now != nil {
		d.now = o.Now()
	}
	keyless := o.CertificateIdentity != "" || o.CertificateOIDCIssuer != ""
	switch {
	case len(o.Bundle) == 0:
		return nil, refuse("name a Sigstore bundle with --bundle", "there is no signature to verify")
	case len(o.Key) > 0 && keyless:
		return nil, refuse("give either --key or --certificate-identity and --certificate-oidc-issuer", "the signer is demanded in two ways")
	case len(o.Key) == 0 && (o.CertificateIdentity == "" || o.CertificateOIDCIssuer == ""):
		return nil, refuse("give --key, or both --certificate-identity and --certificate-oidc-issuer", "it isn't said who must have signed")
	case keyless && len(o.TrustedRoot) == 0:
		return nil, refuse("give the trusted_root.json of the Sigstore instance with --trusted-root; this program fetches none",
			"a keyless signature can't be verified without a trusted root")
	}
	if len(o.TrustedRoot) > 0 {
		trusted, err := parseTrustedRoot(o.TrustedRoot)
		if err == nil && keyless {
			err = canCertify(trusted)
		}
		if err != nil {
			return nil, refuse("give the trusted_root.json of a Sigstore instance", "read the trusted root: %w", err)
		}
		d.trusted, d.logKeys = trusted, true
	}
	if keyless {
		id, err := newIdentity(o.CertificateOIDCIssuer, o.CertificateIdentity, "")
		if err != nil {
			return nil, refuse("", "read the identity: %w", err)
		}
		d.identities = []identity{id}
		return d, nil
	}
	k, err := parsePublicKey(o.Key)
	if err != nil {
		return nil, refuse("give a public key, as in a cosign.pub", "read the key: %w", err)
	}
	k.name = k.id
	d.keys = []key{k}
	return d, nil
}

// blobArtifact returns the file, which can be read for one attempt: there is one demanded signer.
func blobArtifact(o BlobOptions, file *blobReader) (artifact, error) {
	if (o.Artifact == nil) == (o.Digest == "") {
		return nil, fault.New(fault.Refuse, fault.Input, "name one file, or one digest as sha256:<64 hexadecimal digits>", "it isn't said what was signed")
	}
	if o.Digest == "" {
		return func(buffers bool) verify.ArtifactPolicyOption {
			file.bounded = buffers
			return verify.WithArtifact(file)
		}, nil
	}
	sum, err := parseDigest(o.Digest)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "name a file, or a digest as sha256:<64 hexadecimal digits>", "%w", err)
	}
	return func(bool) verify.ArtifactPolicyOption { return verify.WithArtifactDigest("sha256", sum) }, nil
}

// blobReader reads the file and remembers an error, so that a disk's isn't taken for a bad
// signature. Where it is bounded it fails at the bound; io.LimitReader would instead make the
// signature one of a shortened file.
type blobReader struct {
	from    io.Reader
	bounded bool
	left    int64
	err     error
}

// Read reads on.
func (r *blobReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if r.left -= int64(n); r.bounded && r.left < 0 {
		n, err = 0, errTooLarge
	}
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

var errTooLarge = fmt.Errorf("it is larger than %d MiB, the most that this kind of key can be used for", blobBufferMax>>20)
