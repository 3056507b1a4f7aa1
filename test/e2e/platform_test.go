package e2e

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	_ "modernc.org/sqlite" // to play a platform that was taken over

	"github.com/powernode/powernode-agent/internal/operatorclient"
)

// platform is a running powernode-platform, and its operator at the command line.
type platform struct {
	t testing.TB
	// dir is its data directory, config the operator's credential file.
	dir, config string
	// key is the prefix of the operator's signing key.
	key string
	// listen is where it listens, flags are further ones of serve.
	listen string
	flags  []string
	*process
}

// newPlatform starts a platform in a new directory.
func newPlatform(t testing.TB, flags ...string) *platform {
	t.Helper()
	p := &platform{t: t, dir: filepath.Join(tempDir(t), "platform"), listen: "127.0.0.1:0", flags: flags, key: signingKey(t)}
	p.config = filepath.Join(p.dir, "operator.json")
	p.start()
	return p
}

var listening = regexp.MustCompile(`listen=(127\.0\.0\.1:[0-9]+)`)

// start starts it, and returns once it serves.
func (p *platform) start() {
	p.t.Helper()
	args := append([]string{"serve", "--data", p.dir, "--listen", p.listen}, p.flags...)
	cmd := exec.Command(program("powernode-platform"), args...)
	cmd.Env = []string{"HOME=/nonexistent", "GOTRACEBACK=all"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.process = startProcess(p.t, cmd)
	text, ok := p.log.await(p.done, "msg=serving")
	if !ok {
		p.t.Fatalf("the platform doesn't serve:\n%s", text)
	}
	p.listen = listening.FindStringSubmatch(text)[1]
}

// stop stops it as systemd does.
func (p *platform) stop() {
	p.t.Helper()
	if r := p.end(p.t, syscall.SIGTERM); r.code != 0 {
		p.t.Fatalf("the platform ended with %d:\n%s", r.code, r.stderr)
	}
}

// corrupt changes the platform's database behind its back, as somebody who took it over could.
func (p *platform) corrupt(query string, args ...any) {
	p.t.Helper()
	p.stop()
	db, err := sql.Open("sqlite", filepath.Join(p.dir, "platform.db"))
	if err != nil {
		p.t.Fatal(err)
	}
	done, err := db.Exec(query, args...)
	if err != nil {
		p.t.Fatal(err)
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		p.t.Fatalf("%s: %d rows, %v", query, n, err)
	}
	if err := db.Close(); err != nil {
		p.t.Fatal(err)
	}
	p.start()
}

// operator runs powernode.
func (p *platform) operator(args ...string) result {
	p.t.Helper()
	return command(p.t, "", []string{"POWERNODE_CONFIG=" + p.config, "POWERNODE_KEY_PASSWORD="}, "powernode", args...)
}

// credentials are the operator's, for a test that speaks with the platform itself.
func (p *platform) credentials() operatorclient.Config {
	p.t.Helper()
	config, err := operatorclient.LoadConfig(p.config)
	if err != nil {
		p.t.Fatal(err)
	}
	return config
}

// published is the part of `module publish --output json` that tests look at.
type published struct {
	Name, Version, Repository, Digest string
	Images                            []struct{ Architecture, Digest, Seal string }
	Registered                        *struct {
		EffectivePriority int `json:"effective_priority"`
	}
}

// publish builds a module and publishes it with the operator's key and these further flags.
func (p *platform) publish(m mod, flags ...string) published {
	p.t.Helper()
	return p.publishLayout(append([]string{m.layout(p.t)}, flags...)...)
}

func (p *platform) publishLayout(layoutAndFlags ...string) published {
	p.t.Helper()
	var out published
	p.operator(append([]string{"module", "publish", "--key", p.key + ".key", "--output", "json"}, layoutAndFlags...)...).into(p.t, &out)
	return out
}

// blob returns the path of the file in which the platform's registry keeps a digest's content.
func (p *platform) blob(digest string) string {
	hex := digest[len("sha256:"):]
	return filepath.Join(p.dir, "registry", hex[:2], hex)
}

// signingKey returns the prefix of the key that the tests' operators share.
var signingKey = sharedKey()

// foreignKey is a key that no trust policy names.
var foreignKey = sharedKey()

// sharedKey makes a key by powernode key generate, once for all tests.
func sharedKey() func(testing.TB) string {
	var once sync.Once
	var private, public []byte
	return func(t testing.TB) string {
		t.Helper()
		prefix := filepath.Join(tempDir(t), "operator")
		once.Do(func() {
			var key struct {
				Private string `json:"private_key"`
				Public  string `json:"public_key"`
			}
			command(t, "", []string{"POWERNODE_KEY_PASSWORD="}, "powernode", "key", "generate", "--out", prefix, "--output", "json").into(t, &key)
			private, public = read(t, key.Private), read(t, key.Public)
		})
		write(t, prefix+".key", private, 0o600)
		write(t, prefix+".pub", public, 0o644)
		return prefix
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, path string, data []byte, perm os.FileMode) {
	t.Helper()
	// A file that is there keeps its mode otherwise.
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, perm); err != nil {
		t.Fatal(err)
	}
}

func decode[T any](t testing.TB, data []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	return v
}

// on returns the platform as another test's, for its messages.
func (p *platform) on(t testing.TB) *platform {
	c := *p
	c.t = t
	return &c
}

var nodeNumber atomic.Uint32

// nodeName returns a name that no other node of any platform has.
func nodeName() string { return fmt.Sprintf("node-%d", nodeNumber.Add(1)) }
