package signature

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// newRule checks one rule of the document and reads the files that it names.
func newRule(doc ruleDoc, files fs.FS) (rule, error) {
	r := rule{name: doc.Name}
	switch {
	case len(doc.Images) == 0:
		return rule{}, errors.New("it names no images")
	case len(doc.Images) > imagesMax || len(doc.Modules) > modulesMax || len(doc.Keys) > signersMax || len(doc.Identities) > signersMax:
		return rule{}, fmt.Errorf("it has more than %d images, %d modules, %d keys or %d identities", imagesMax, modulesMax, signersMax, signersMax)
	case len(doc.Keys)+len(doc.Identities) == 0:
		return rule{}, errors.New("it has neither keys nor identities, so nothing could satisfy it")
	case len(doc.Identities) > 0 && doc.TrustedRoot == "":
		return rule{}, errors.New("it has identities but no trusted_root to check their certificates with")
	}
	for _, text := range doc.Images {
		p, err := parseImagePattern(text)
		if err != nil {
			return rule{}, fmt.Errorf("image %.200q: %w", text, err)
		}
		r.images = append(r.images, p)
	}
	for _, text := range doc.Modules {
		p, err := parseModulePattern(text)
		if err != nil {
			return rule{}, fmt.Errorf("module %.200q: %w", text, err)
		}
		r.modules = append(r.modules, p)
	}
	if doc.TrustedRoot != "" {
		text, err := readBeside(files, doc.TrustedRoot, trustedRootMax)
		if err == nil {
			r.trusted, err = parseTrustedRoot(text)
		}
		if err == nil && len(doc.Identities) > 0 {
			err = canCertify(r.trusted)
		}
		if err != nil {
			return rule{}, fmt.Errorf("trusted_root %.200q: %w", doc.TrustedRoot, err)
		}
	}
	for i, kd := range doc.Keys {
		k, err := newKey(kd, files)
		if err == nil && slices.ContainsFunc(r.keys, func(other key) bool { return other.id == k.id }) {
			err = errors.New("it stands there twice")
		}
		if err != nil {
			return rule{}, fmt.Errorf("key %d: %w", i+1, err)
		}
		r.keys = append(r.keys, k)
	}
	for i, id := range doc.Identities {
		m, err := newIdentity(id.Issuer, id.Subject, id.SubjectRegexp)
		if err != nil {
			return rule{}, fmt.Errorf("identity %d: %w", i+1, err)
		}
		r.identities = append(r.identities, m)
	}
	return r, nil
}

func newKey(doc keyDoc, files fs.FS) (key, error) {
	text, name := []byte(doc.PEM), doc.Name
	switch {
	case (doc.PEM == "") == (doc.File == ""):
		return key{}, errors.New("it needs either pem or file")
	case doc.File != "":
		var err error
		if text, err = readBeside(files, doc.File, keyFileMax); err != nil {
			return key{}, fmt.Errorf("file %.200q: %w", doc.File, err)
		}
		if name == "" {
			name = doc.File
		}
	}
	k, err := parsePublicKey(text)
	if err != nil {
		return key{}, err
	}
	if k.name = name; name == "" {
		k.name = k.id
	}
	if k.notBefore, err = parseTime("not_before", doc.NotBefore); err != nil {
		return key{}, err
	}
	if k.notAfter, err = parseTime("not_after", doc.NotAfter); err != nil {
		return key{}, err
	}
	if !k.notBefore.IsZero() && !k.notAfter.IsZero() && !k.notBefore.Before(k.notAfter) {
		return key{}, errors.New("not_after isn't later than not_before")
	}
	return k, nil
}

func parseTime(field, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s %.60q is not a time like 2026-01-31T00:00:00Z", field, text)
	}
	return t, nil
}

// newIdentity makes a matcher of certificates: the issuer exactly, and the subject exactly or by
// a regular expression that must match all of it.
func newIdentity(issuer, subject, subjectRegexp string) (identity, error) {
	switch {
	case issuer == "":
		return identity{}, errors.New("it names no issuer")
	case (subject == "") == (subjectRegexp == ""):
		return identity{}, errors.New("it needs either subject or subject_regexp")
	case len(subjectRegexp) > regexpMax:
		return identity{}, fmt.Errorf("its subject_regexp is longer than %d bytes", regexpMax)
	}
	shown, expr := subject, ""
	if subjectRegexp != "" {
		if _, err := regexp.Compile(subjectRegexp); err != nil {
			return identity{}, fmt.Errorf("subject_regexp: %w", err)
		}
		shown, expr = subjectRegexp, `\A(?:`+subjectRegexp+`)\z`
	}
	m, err := verify.NewShortCertificateIdentity(issuer, "", subject, expr)
	if err != nil {
		return identity{}, err
	}
	return identity{issuer: issuer, subject: shown, matcher: m}, nil
}

// readBeside reads a file that the policy names.
func readBeside(files fs.FS, name string, limit int64) ([]byte, error) {
	if !fs.ValidPath(name) || files == nil {
		return nil, errors.New("it is not a path below the policy's directory")
	}
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("it is larger than %d bytes", limit)
	}
	return text, err
}

// parseTrustedRoot reads a trusted_root.json.
func parseTrustedRoot(text []byte) (*root.TrustedRoot, error) {
	if len(text) > trustedRootMax {
		return nil, fmt.Errorf("it is larger than %d bytes", trustedRootMax)
	}
	return root.NewTrustedRootFromJSON(text)
}

// canCertify reports what a trusted root lacks to verify any keyless signature at all.
func canCertify(trusted *root.TrustedRoot) error {
	switch {
	case len(trusted.FulcioCertificateAuthorities()) == 0:
		return errors.New("it names no certificate authority, so it can't certify an identity")
	case len(trusted.CTLogs()) == 0:
		return errors.New("it names no certificate transparency log, so it can't certify an identity")
	case len(trusted.RekorLogs()) == 0:
		return errors.New("it names no transparency log, so it can't certify an identity")
	}
	return nil
}
