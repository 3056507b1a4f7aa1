package nodeconfig

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Key is one line of an authorized_keys file, by the format of sshd(8).
type Key struct {
	// Options stand before the key, as they were written; "" where there are none.
	Options string
	// Type is the key's, such as "ssh-ed25519".
	Type string
	// Blob is the public key in the format of RFC 4253, 6.6.
	Blob []byte
	// Comment is free text.
	Comment string
}

// keyTypes are those that an sshd of today accepts by default. DSA is gone from OpenSSH 10, and a
// certificate isn't a key: its authority's key is, with the option cert-authority.
var keyTypes = map[string]bool{
	ssh.KeyAlgoED25519: true, ssh.KeyAlgoSKED25519: true, ssh.KeyAlgoSKECDSA256: true, ssh.KeyAlgoRSA: true,
	ssh.KeyAlgoECDSA256: true, ssh.KeyAlgoECDSA384: true, ssh.KeyAlgoECDSA521: true,
}

// The sizes of RSA keys: fewer bits are refused by OpenSSH's policies, more by its code.
const (
	minRSABits = 2048
	maxRSABits = 16384
)

// String returns the line, fields separated by one space.
func (k Key) String() string {
	line := k.Type + " " + base64.StdEncoding.EncodeToString(k.Blob)
	if k.Options != "" {
		line = k.Options + " " + line
	}
	if k.Comment != "" {
		line += " " + k.Comment
	}
	return line
}

// Fingerprint returns the key's name for people, "SHA256:…", as ssh-keygen -l shows it.
func (k Key) Fingerprint() string {
	key, err := ssh.ParsePublicKey(k.Blob)
	if err != nil {
		return ""
	}
	return ssh.FingerprintSHA256(key)
}

// ParseKey reads one line. The error says what is wrong with it.
func ParseKey(line string) (Key, error) {
	var k Key
	switch {
	case len(line) > nodeapi.MaxKeyLine:
		return k, fmt.Errorf("a line of %d bytes, more than %d", len(line), nodeapi.MaxKeyLine)
	case !utf8.ValidString(line):
		return k, errors.New("it isn't UTF-8")
	}
	// A line feed or a carriage return would be a line of its own for one reader or another.
	if i := strings.IndexFunc(line, func(r rune) bool { return r != '\t' && !unicode.IsPrint(r) }); i >= 0 {
		return k, errors.New("it holds a character that doesn't print")
	}
	rest := strings.Trim(line, " \t")
	first, _ := cutField(rest)
	if !keyTypes[first] {
		var err error
		if k.Options, rest, err = cutOptions(rest); err != nil {
			return k, err
		}
	}
	var text string
	k.Type, rest = cutField(rest)
	text, k.Comment = cutField(rest)
	k.Comment = strings.ReplaceAll(k.Comment, "\t", " ")
	if !keyTypes[k.Type] {
		return k, fmt.Errorf("%.40q isn't a type of key that sshd accepts", k.Type)
	}
	var err error
	if k.Blob, err = base64.StdEncoding.Strict().DecodeString(text); err != nil {
		return k, errors.New("the key isn't base64, or is cut short")
	}
	return k, checkBlob(k.Type, k.Blob)
}

// checkBlob makes sure that a key is whole, and of the type that its line says.
func checkBlob(kind string, blob []byte) error {
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return errors.New("the key is damaged")
	}
	if key.Type() != kind {
		return fmt.Errorf("the line says %s and the key is %.40q", kind, key.Type())
	}
	// Numbers with needless zeros, and whatever else has two forms.
	if !bytes.Equal(key.Marshal(), blob) {
		return errors.New("the key isn't in its one form")
	}
	crypto, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return nil
	}
	if k, ok := crypto.CryptoPublicKey().(*rsa.PublicKey); ok && (k.N.BitLen() < minRSABits || k.N.BitLen() > maxRSABits) {
		return fmt.Errorf("an RSA key of %d bits: %d to %d are accepted", k.N.BitLen(), minRSABits, maxRSABits)
	}
	return nil
}

// ParseKeys reads a list of lines. One that is wrong makes the whole list wrong, since nobody can say
// whom it was to let in; so does a key that is listed twice with other options. Lines that say the same
// count once. An empty list is an error.
func ParseKeys(lines []string) ([]Key, error) {
	if len(lines) == 0 {
		return nil, errors.New("the list of keys is empty")
	}
	if len(lines) > nodeapi.MaxUserKeys {
		return nil, fmt.Errorf("%d keys, more than %d", len(lines), nodeapi.MaxUserKeys)
	}
	var keys []Key
	seen := make(map[string]Key, len(lines))
	for i, line := range lines {
		k, err := ParseKey(line)
		if err != nil {
			return nil, fmt.Errorf("key %d of %d: %w", i+1, len(lines), err)
		}
		was, twice := seen[string(k.Blob)]
		switch {
		case twice && was.Options != k.Options:
			return nil, fmt.Errorf("key %d of %d is listed before with other options", i+1, len(lines))
		case twice:
			continue
		}
		seen[string(k.Blob)] = k
		keys = append(keys, k)
	}
	return keys, nil
}

// KeyLines returns the lines of an authorized_keys file that are to be keys: without comments and
// empty lines.
func KeyLines(file string) []string {
	var lines []string
	for line := range strings.Lines(file) {
		if line = strings.Trim(line, " \t\r\n"); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return lines
}

// cutField cuts the first field off, and the blanks behind it.
func cutField(s string) (field, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}
