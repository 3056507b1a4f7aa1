package e2e

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	_ "modernc.org/sqlite" // to play a platform that was taken over

	"github.com/powernode/powernode-agent/test/lab"
)

// platform is a running powernode-platform whose nodes boot in namespaces.
type platform struct{ *lab.Platform }

// newPlatform starts a platform in a new directory.
func newPlatform(t testing.TB, flags ...string) *platform {
	t.Helper()
	return &platform{lab.NewPlatform(t, flags...)}
}

// platformWith starts a platform that has these modules.
func platformWith(t testing.TB, modules ...mod) *platform {
	t.Helper()
	p := newPlatform(t)
	for _, m := range modules {
		p.Publish(m)
	}
	return p
}

// on returns the platform as another test's, for its messages.
func (p *platform) on(t testing.TB) *platform {
	c := *p.Platform
	c.T = t
	return &platform{&c}
}

// corrupt changes the platform's database behind its back, as somebody who took it over could.
func (p *platform) corrupt(query string, args ...any) {
	p.T.Helper()
	p.Stop()
	db, err := sql.Open("sqlite", filepath.Join(p.Dir, "platform.db"))
	if err != nil {
		p.T.Fatal(err)
	}
	done, err := db.Exec(query, args...)
	if err != nil {
		p.T.Fatal(err)
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		p.T.Fatalf("%s: %d rows, %v", query, n, err)
	}
	if err := db.Close(); err != nil {
		p.T.Fatal(err)
	}
	p.Start()
}

type (
	result    = lab.Result
	process   = lab.Process
	published = lab.Published
)

func command(t testing.TB, stdin string, env []string, name string, args ...string) result {
	t.Helper()
	return lab.Command(t, stdin, env, name, args...)
}

var (
	signingKey   = lab.SigningKey
	foreignKey   = lab.ForeignKey
	tempDir      = lab.TempDir
	program      = lab.Program
	read         = lab.Read
	write        = lab.Write
	startProcess = lab.StartProcess
)

func decode[T any](t testing.TB, data []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	return v
}

var nodeNumber atomic.Uint32

// nodeName returns a name that no other node of any platform has.
func nodeName() string { return fmt.Sprintf("node-%d", nodeNumber.Add(1)) }
