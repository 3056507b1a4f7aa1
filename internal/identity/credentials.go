package identity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/powernode/powernode-agent/internal/bootconfig"
)

// Credentials are systemd's (systemd.exec(5), "Credentials"): files powernode.NAME, with the usual names
// of the fields but ca_file, in the directory that the unit has for its own, and in the one of the
// system's, into which systemd takes what it finds in SMBIOS, fw_cfg and on the kernel command line.
type Credentials struct {
	// Own is the unit's directory; "" is what $CREDENTIALS_DIRECTORY says.
	Own string
	// Run is where systemd has the system's; "" is /run/credentials.
	Run string
}

// Name returns "credentials".
func (Credentials) Name() string { return "credentials" }

// Find reads the files. Of both directories, the unit's own counts first. Credentials that are encrypted
// can't be read here: systemd decrypts them for a unit that asks with LoadCredentialEncrypted=.
func (s Credentials) Find(context.Context) (Found, error) {
	own, run := s.Own, s.Run
	if own == "" {
		own = os.Getenv("CREDENTIALS_DIRECTORY")
	}
	if run == "" {
		run = "/run/credentials"
	}
	var raw Raw
	var where string
	origin := map[Field]string{}
	for _, dir := range []string{own, filepath.Join(run, "@system")} {
		if !filepath.IsAbs(dir) {
			continue
		}
		took, err := raw.fill(dir, origin)
		if err != nil {
			return Found{}, err
		}
		if took && where == "" {
			where = dir
		}
	}
	if raw.IsZero() {
		reason := "there is no credential " + bootconfig.Prefix + "*"
		if sealed, err := filepath.Glob(filepath.Join(run, "@encrypted", bootconfig.Prefix+"*")); err == nil && len(sealed) > 0 {
			reason += fmt.Sprintf("; %s is encrypted: only a unit with LoadCredentialEncrypted= gets it", sealed[0])
		}
		return Found{}, NotFound("%s", reason)
	}
	return raw.Check(where, func(f Field) string { return origin[f] })
}

// fill takes what raw lacks from the files of a directory, and reports whether it took anything.
func (r *Raw) fill(dir string, origin map[Field]string) (took bool, err error) {
	root, err := os.OpenRoot(dir)
	if absent(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer root.Close()
	for _, f := range hostFields() {
		if *r.At(f) != "" {
			continue
		}
		name := bootconfig.Prefix + f.String()
		origin[f] = filepath.Join(dir, name)
		text, err := readCredential(root, name, limitOf(f))
		if err != nil {
			return took, fmt.Errorf("read %s: %w", origin[f], err)
		}
		if *r.At(f) = text; text != "" {
			took = true
		}
	}
	return took, nil
}

func readCredential(root *os.Root, name string, limit int64) (string, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := readAll(f, limit)
	return strings.Trim(string(b), "\x00 \t\r\n"), err
}
