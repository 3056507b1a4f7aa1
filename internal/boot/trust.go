package boot

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/signature"
)

// trustMax bounds the trust policy in bytes; what it names is bounded by package signature.
const trustMax = 4 << 20

// Trust is a trust policy as it was read, once.
type Trust struct {
	Verifier *signature.Verifier
	// Required is the least integrity level that the policy accepts.
	Required mount.Level
	// RecoveryShell and EphemeralRoot are what the policy says of consoles and of writable layers; see
	// signature.Policy.
	RecoveryShell, EphemeralRoot bool
	// NodeKey is where the policy has the node's own key kept.
	NodeKey signature.NodeKey
	// PrivilegedServices are the modules whose services may have all rights.
	PrivilegedServices []string
	// Files are the policy, under the name TrustName, and the files that it names, by their paths
	// relative to it: the very bytes that Verifier was made from.
	Files map[string][]byte
}

// LoadTrust reads the trust policy at path with the files that it names, which lie beside or below
// it. Validity windows of keys are judged by the machine's clock.
func LoadTrust(path string) (Trust, error) { return loadTrust(path, time.Now) }

func loadTrust(path string, now func() time.Time) (Trust, error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return Trust{}, noTrust(path, err)
	}
	defer root.Close()
	text, err := readRootFile(root, filepath.Base(path))
	if err != nil {
		return Trust{}, noTrust(path, err)
	}
	t := Trust{Files: map[string][]byte{TrustName: text}}
	policy, err := signature.LoadPolicy(text, recorder{root, t.Files})
	if err != nil {
		return Trust{}, fmt.Errorf("trust policy %s: %w", path, err)
	}
	if t.Required, err = mount.ParseLevel(string(policy.Integrity())); err != nil {
		return Trust{}, err
	}
	t.RecoveryShell, t.EphemeralRoot, t.NodeKey = policy.RecoveryShell(), policy.EphemeralRoot(), policy.NodeKey()
	t.PrivilegedServices = policy.PrivilegedServices()
	t.Verifier, err = signature.NewVerifier(policy, signature.Options{Now: now})
	return t, err
}

func noTrust(path string, err error) error {
	return fault.New(fault.Refuse, fault.Verify, "put a trust.yaml there that says whose signatures count, or name another with --trust-policy",
		"read the trust policy %s: %w", path, err)
}

// recorder is the policy's directory as a file system that keeps what is read from it.
type recorder struct {
	root  *os.Root
	files map[string][]byte
}

// Open implements fs.FS.
func (r recorder) Open(name string) (fs.File, error) {
	f, err := openRegular(r.root, name)
	if err != nil {
		return nil, err
	}
	r.files[name] = nil
	return &recorded{f, name, r.files}, nil
}

// recorded is a file whose bytes are kept as they are read.
type recorded struct {
	*os.File
	name  string
	files map[string][]byte
}

// Read implements io.Reader.
func (f *recorded) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.files[f.name] = append(f.files[f.name], p[:n]...)
	return n, err
}

// readRootFile reads a regular file of at most trustMax bytes.
func readRootFile(root *os.Root, name string) ([]byte, error) {
	f, err := openRegular(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, trustMax+1))
	if err == nil && len(data) > trustMax {
		err = fmt.Errorf("%s is larger than %d bytes", name, trustMax)
	}
	return data, err
}

// openRegular opens a regular file. A FIFO or a device isn't waited for.
func openRegular(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s isn't a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
