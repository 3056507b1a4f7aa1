package lab

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"

	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

// Platform is a running powernode-platform, and its operator at the command line.
type Platform struct {
	T testing.TB
	// Dir is its data directory, Config the operator's credential file.
	Dir, Config string
	// Key is the prefix of the operator's signing key.
	Key string
	// Listen is where it listens, Flags are further ones of serve.
	Listen string
	Flags  []string
	*Process
}

// NewPlatform starts a platform in a new directory.
func NewPlatform(t testing.TB, flags ...string) *Platform {
	t.Helper()
	p := &Platform{T: t, Dir: filepath.Join(TempDir(t), "platform"), Listen: OwnAddress(t), Flags: flags, Key: SigningKey(t)}
	p.Config = filepath.Join(p.Dir, "operator.json")
	p.Start()
	return p
}

// OwnAddress returns an address of the loopback, host and port, at which nobody listens, and which nobody gets who asks for any port while the test
// lasts: a socket has it that lets those listen who ask for this port (socket(7), SO_REUSEADDR).
func OwnAddress(t testing.TB) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
}

var listening = regexp.MustCompile(`listen="?([^ "]+:[0-9]+)`)

// Start starts it, and returns once it serves.
func (p *Platform) Start() {
	p.T.Helper()
	args := append([]string{"serve", "--data", p.Dir, "--listen", p.Listen}, p.Flags...)
	cmd := exec.Command(Program("powernode-platform"), args...)
	cmd.Env = []string{"HOME=/nonexistent", "GOTRACEBACK=all"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.Process = StartProcess(p.T, cmd)
	text, ok := p.Log.Await(p.Done, "msg=serving")
	if !ok {
		p.T.Fatalf("the platform doesn't serve:\n%s", text)
	}
	p.Listen = listening.FindStringSubmatch(text)[1]
}

// Stop stops it as systemd does.
func (p *Platform) Stop() {
	p.T.Helper()
	if r := p.End(p.T, syscall.SIGTERM); r.Code != 0 {
		p.T.Fatalf("the platform ended with %d:\n%s", r.Code, r.Stderr)
	}
}

// Operator runs powernode.
func (p *Platform) Operator(args ...string) Result {
	p.T.Helper()
	return Command(p.T, "", []string{"POWERNODE_CONFIG=" + p.Config, "POWERNODE_KEY_PASSWORD="}, "powernode", args...)
}

// Credentials are the operator's, for a test that speaks with the platform itself.
func (p *Platform) Credentials() operatorclient.Config {
	p.T.Helper()
	config, err := operatorclient.LoadConfig(p.Config)
	if err != nil {
		p.T.Fatal(err)
	}
	return config
}

// Published is the part of `module publish --output json` that tests look at.
type Published struct {
	Name, Version, Repository, Digest string
	Images                            []struct{ Architecture, Digest, Seal string }
	Registered                        *struct {
		EffectivePriority int `json:"effective_priority"`
	}
}

// Publish builds a module and publishes it with the operator's key and these further flags.
func (p *Platform) Publish(m Module, flags ...string) Published {
	p.T.Helper()
	return p.PublishLayout(append([]string{m.Layout(p.T)}, flags...)...)
}

// PublishLayout publishes a layout, or several.
func (p *Platform) PublishLayout(layoutAndFlags ...string) Published {
	p.T.Helper()
	var out Published
	p.Operator(append([]string{"module", "publish", "--key", p.Key + ".key", "--output", "json"}, layoutAndFlags...)...).Into(p.T, &out)
	return out
}

// Token gives a node a new bootstrap token.
func (p *Platform) Token(node string, flags ...string) operatorapi.Token {
	p.T.Helper()
	var token operatorapi.Token
	p.Operator(append([]string{"token", "create", node, "--output", "json"}, flags...)...).Into(p.T, &token)
	return token
}

// Trust writes a trust policy with one rule into dir, as trust.yaml: the operator's key counts for
// these images. further are lines that are put before the rules.
func (p *Platform) Trust(t testing.TB, dir, images, further string) {
	t.Helper()
	Write(t, filepath.Join(dir, "operator.pub"), Read(t, p.Key+".pub"), 0o644)
	Write(t, filepath.Join(dir, "trust.yaml"), []byte("schema_version: 1\n"+further+
		"rules:\n  - name: site\n    images: ["+images+"]\n    keys:\n      - file: operator.pub\n"), 0o644)
}

// Blob returns the path of the file in which the platform's registry keeps a digest's content.
func (p *Platform) Blob(digest string) string {
	hex := digest[len("sha256:"):]
	return filepath.Join(p.Dir, "registry", hex[:2], hex)
}

// SigningKey returns the prefix of the key that the tests' operators share.
var SigningKey = sharedKey()

// ForeignKey is a key that no trust policy names.
var ForeignKey = sharedKey()

// sharedKey makes a key by powernode key generate, once for all tests.
func sharedKey() func(testing.TB) string {
	var once sync.Once
	var private, public []byte
	return func(t testing.TB) string {
		t.Helper()
		prefix := filepath.Join(TempDir(t), "operator")
		once.Do(func() {
			var key struct {
				Private string `json:"private_key"`
				Public  string `json:"public_key"`
			}
			Command(t, "", []string{"POWERNODE_KEY_PASSWORD="}, "powernode", "key", "generate", "--out", prefix, "--output", "json").Into(t, &key)
			private, public = Read(t, key.Private), Read(t, key.Public)
		})
		Write(t, prefix+".key", private, 0o600)
		Write(t, prefix+".pub", public, 0o644)
		return prefix
	}
}
