// Package secretfile reads secrets that a person put into files, so that they are neither in a command line, which every
// user sees, nor in an environment, which children inherit.
//
// It promises that a file which others may read is refused, and that no error holds what is in the file. It trusts
// nothing.
package secretfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/secret"
)

// Limit is the most that a file may hold, in bytes.
const Limit = 4096

// Read returns what the file at path holds, without line ends behind it. flag is the option that names the file, for hints.
func Read(path, flag string) (text secret.Text, err error) {
	f, err := os.Open(path)
	if err != nil {
		return secret.Text{}, fault.New(fault.Refuse, fault.Input, "name a file with "+flag+" that this program may read", "read the secret of %s: %w", flag, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return secret.Text{}, fmt.Errorf("read the secret of %s: %w", flag, err)
	case !info.Mode().IsRegular():
		return secret.Text{}, fault.New(fault.Refuse, fault.Input, "name a file with "+flag, "%s is no file", path)
	case info.Mode().Perm()&0o007 != 0:
		return secret.Text{}, fault.New(fault.Refuse, fault.Input, "chmod 600 "+path, "%s: mode %04o lets everyone at the secret", path, info.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, Limit+1))
	if err != nil {
		return secret.Text{}, fmt.Errorf("read the secret of %s: %w", flag, err)
	}
	text = secret.New(strings.TrimRight(string(b), "\r\n"))
	if text.IsZero() || len(b) > Limit {
		return secret.Text{}, fault.New(fault.Refuse, fault.Input, "write the secret, and nothing else, into it", "%s is empty, or has more than %d bytes", path, Limit)
	}
	return text, nil
}
