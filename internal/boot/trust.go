package boot

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/signature"
)

// trustMax bounds, in bytes, each file of the trust policy's directory, and trustFiles their
// number.
const (
	trustMax   = 4 << 20
	trustFiles = 64
)

// LoadTrust reads the trust policy at path, with the files beside it, and returns its verifier
// and the least integrity level that it accepts.
func LoadTrust(path string) (*signature.Verifier, mount.Level, error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, "", noTrust(path, err)
	}
	defer root.Close()
	text, err := readRootFile(root, filepath.Base(path))
	if err != nil {
		return nil, "", noTrust(path, err)
	}
	policy, err := signature.LoadPolicy(text, root.FS())
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	level, err := mount.ParseLevel(string(policy.Integrity()))
	if err != nil {
		return nil, "", err
	}
	verifier, err := signature.NewVerifier(policy, signature.Options{})
	if err != nil {
		return nil, "", err
	}
	return verifier, level, nil
}

func noTrust(path string, err error) error {
	return fault.New(fault.Refuse, fault.Verify, "put a trust.yaml there that says whose signatures count, or name another with --trust-policy",
		"read the trust policy %s: %w", path, err)
}

// readRootFile reads a regular file of at most trustMax bytes.
func readRootFile(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s isn't a regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, trustMax+1))
	if err == nil && len(data) > trustMax {
		err = fmt.Errorf("%s is larger than %d bytes", name, trustMax)
	}
	return data, err
}

// readTrust reads the trust policy and every file below its directory, by paths relative to it.
// The policy itself goes by TrustName. More than trustFiles files are refused: somebody has put
// the policy into a directory that isn't its own.
func readTrust(policy string) (map[string][]byte, error) {
	root, err := os.OpenRoot(filepath.Dir(policy))
	if err != nil {
		return nil, noTrust(policy, err)
	}
	defer root.Close()
	files := make(map[string][]byte)
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if len(files) == trustFiles {
			return fault.New(fault.Refuse, fault.Input, "give the trust policy a directory of its own",
				"there are more than %d files beside it", trustFiles)
		}
		data, err := readRootFile(root, name)
		files[name] = data
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("take the trust policy %s along: %w", policy, err)
	}
	if own := filepath.Base(policy); own != TrustName {
		files[TrustName] = files[own]
		delete(files, own)
	}
	return files, nil
}
