package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// envelope is how a record lies on the disk. The checksum finds damage; it is no signature.
type envelope struct {
	SHA256 string          `json:"sha256"` // of Record's bytes as they stand in the file
	Record json.RawMessage `json:"record"`
}

// sealRecord returns v as the content of a record file.
func sealRecord(v any) ([]byte, error) {
	body, err := json.MarshalIndent(v, "  ", "  ")
	if err != nil {
		return nil, err
	}
	var file bytes.Buffer
	fmt.Fprintf(&file, "{\n  \"sha256\": %q,\n  \"record\": %s\n}\n", sha256Hex(body), body)
	if file.Len() > recordLimit {
		return nil, fmt.Errorf("a record of %d bytes: at most %d are kept", file.Len(), recordLimit)
	}
	return file.Bytes(), nil
}

// openRecord reads the content of a record file into v.
func openRecord(data []byte, v any) error {
	var e envelope
	if err := durable.DecodeJSON(data, &e); err != nil {
		return err
	}
	if sum := sha256Hex(e.Record); sum != e.SHA256 {
		return fmt.Errorf("the checksum doesn't match: sha256 %s, the record says %.80q", sum, e.SHA256)
	}
	return durable.DecodeJSON(e.Record, v)
}

// readRecord reads the record file name in dir into v. A file that isn't there gives an error
// that wraps fs.ErrNotExist; a damaged one is Broken.
func readRecord(dir *durable.Dir, name string, v any) error {
	data, err := dir.ReadFile(name, recordLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		err = openRecord(data, v)
	}
	return damaged(dir.Path()+"/"+name, err)
}

// damaged says that a file of the store can't be used; nil stays nil, and an error that is of kind
// Broken already stays what it is.
func damaged(path string, err error) error {
	if f, ok := errors.AsType[*fault.Error](err); err == nil || ok && f.Kind == fault.Broken {
		return err
	}
	if errors.Is(err, fs.ErrNotExist) {
		// A part that is missing must not look as if the whole weren't there.
		err = errors.New("it is missing")
	}
	return fault.New(fault.Broken, fault.Mount, "remove it and pull or compose again what it described", "%s is damaged: %w", path, &damageError{err})
}

// damageError says that what was read isn't what was written, as opposed to a failure to read it.
type damageError struct{ error }

func (d *damageError) Unwrap() error { return d.error }

func isDamage(err error) bool {
	_, ok := errors.AsType[*damageError](err)
	return ok
}

func sha256Hex(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// parseSHA256 returns the hexadecimal digits of an OCI digest "sha256:…".
func parseSHA256(digest string) (string, error) {
	const prefix = "sha256:"
	if len(digest) != len(prefix)+2*sha256.Size || digest[:len(prefix)] != prefix || !isHex(digest[len(prefix):]) {
		return "", fault.New(fault.Refuse, fault.Input, "", "digest %.100q: want sha256: and 64 lower-case hexadecimal digits", digest)
	}
	return digest[len(prefix):], nil
}

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
