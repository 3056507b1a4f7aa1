package e2e

import (
	"bytes"
	"encoding/binary"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// enrolling is a machine that a person enrolls at the command line, with all that was said on the way.
type enrolling struct {
	*platform
	t      testing.TB
	ca     string
	spoken strings.Builder
	tokens []operatorapi.Token
	states []string
}

// give makes a node with a token.
func (e *enrolling) give(flags ...string) operatorapi.Token {
	e.t.Helper()
	name := nodeName()
	e.Operator("node", "create", name).OK(e.t)
	return e.keep(e.Token(name, flags...))
}

func (e *enrolling) keep(token operatorapi.Token) operatorapi.Token {
	e.tokens = append(e.tokens, token)
	return token
}

// enroll runs enroll for a machine with this directory of record, "" for a new one.
func (e *enrolling) enroll(state, stdin string, env []string, flags ...string) result {
	e.t.Helper()
	if state == "" {
		state = filepath.Join(tempDir(e.t), "state")
		if err := os.Mkdir(state, 0o755); err != nil {
			e.t.Fatal(err)
		}
	}
	e.states = append(e.states, state)
	args := append([]string{"enroll", "--state", state, "--platform-url", e.url(), "--ca-file", e.ca, "--tries", "1"}, flags...)
	r := command(e.t, stdin, env, "powernode-agent", args...)
	e.spoken.WriteString(r.Stdout + r.Stderr)
	return r
}

func (e *enrolling) url() string { return "https://" + e.Listen }

// file writes a text for the machine to read.
func (e *enrolling) file(text string) string {
	e.t.Helper()
	path := filepath.Join(tempDir(e.t), "token")
	write(e.t, path, []byte(text), 0o600)
	return path
}

func newEnrolling(t testing.TB, p *platform) *enrolling {
	t.Helper()
	return &enrolling{platform: p, t: t, ca: filepath.Join(p.Dir, "ca", "ca.pem")}
}

// TestTokens gives tokens in every way, and refuses every other token by the same answer; the operator learns which it was. Nothing that is
// said or kept holds a token.
func TestTokens(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, "--log-level", "debug")
	e := newEnrolling(t, p)

	e.enroll("", "", nil, "--token-file", e.file(e.give().Token+"\n")).OK(t)
	e.enroll("", e.give().Token+"\n", nil, "--token-file", "-").OK(t)
	dir := tempDir(t)
	write(t, filepath.Join(dir, "powernode.bootstrap_token"), []byte(e.give().Token), 0o400)
	e.enroll("", "", []string{"CREDENTIALS_DIRECTORY=" + dir}).OK(t)
	r := e.enroll("", "", nil, "--token", e.give().Token)
	r.OK(t)
	if !strings.Contains(r.Stderr, "warning: ") || !strings.Contains(r.Stderr, "--token-file") {
		t.Errorf("a token on the command line: %s", r.Stderr)
	}
	e.enroll("", "", []string{"POWERNODE_TOKEN=" + e.give().Token}).Refused(t, 1, "token")

	// What is wrong with these is for the operator to know.
	used, expired, foreign, revoked := e.tokens[0], e.give("--ttl", "1s"), e.give(), e.give()
	p.Operator("node", "revoke", revoked.NodeName).OK(t)
	time.Sleep(time.Until(expired.ExpiresAt))
	stranger := used
	stranger.Token = "AAAA" + used.Token[4:]
	answers := make(map[string]string)
	for _, c := range []struct {
		what  string
		token operatorapi.Token
		flags []string
		event string
	}{
		{"used", used, nil, "the token was used by another key"},
		{"expired", expired, nil, "the token has expired"},
		{"foreign", foreign, []string{"--instance-id", used.NodeID}, "the token belongs to another node"},
		{"ended by a revocation", revoked, nil, ""},
		{"unknown", stranger, nil, ""},
	} {
		r := e.enroll("", "", nil, append(c.flags, "--token-file", e.file(c.token.Token))...)
		r.Refused(t, 5, "TOKEN_REFUSED", "powernode token create")
		answers[r.Stderr] += " " + c.what
		n := &node{t: t, p: p, name: c.token.NodeName}
		if c.event != "" && !n.happened("enroll.refused", c.event) {
			t.Errorf("%s: the operator sees %+v", c.what, n.detail().Events)
		}
		if c.event != "" && !strings.Contains(p.Operator("node", "show", n.name).OK(t), c.event) {
			t.Errorf("%s: node show doesn't say it", c.what)
		}
	}
	if len(answers) != 1 {
		t.Errorf("the answers differ: %q", answers)
	}
	e.enroll("", "", nil, "--token-file", e.file("short")).Refused(t, 1, "token", "powernode token create")

	p.Stop()
	e.spoken.WriteString(p.Log.String())
	said := e.spoken.String()
	for _, token := range append(e.tokens, stranger) {
		if strings.Contains(said, token.Token) {
			t.Errorf("the token of %s is said", token.NodeName)
		}
	}
	if strings.Contains(said, "PRIVATE KEY") || strings.Contains(said, p.Credentials().Token.Reveal()) {
		t.Error("a secret is said")
	}
	for _, dir := range append(e.states, p.Dir) {
		e.secretsKept(dir)
	}
}

// secretsKept checks that no file below dir holds a token, and that none which others may read holds a private key.
func (e *enrolling) secretsKept(dir string) {
	e.t.Helper()
	open := make(map[string]bool) // the directories that others may enter
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		public := info.Mode().Perm()&0o077 != 0 && (path == dir || open[filepath.Dir(path)])
		open[path] = public
		if !d.Type().IsRegular() {
			return nil
		}
		text := string(read(e.t, path))
		for _, token := range e.tokens {
			if strings.Contains(text, token.Token) {
				e.t.Errorf("%s holds the token of %s", path, token.NodeName)
			}
		}
		if strings.Contains(text, "PRIVATE KEY") && (public || info.Mode().Perm() != 0o600) {
			e.t.Errorf("%s holds a private key and is %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		e.t.Fatal(err)
	}
}

// loser passes connections on, and as long as it is told to, loses what the platform answers to a request that is as long as one for a certificate.
type loser struct {
	losing atomic.Bool
	lost   atomic.Int64
}

// A request for a certificate is some 700 bytes and more, a question for the time 400. An answer with certificates is 2000 and more.
const (
	longRequest = 600
	longAnswer  = 1500
)

// pass is one connection.
func (l *loser) pass(near, far net.Conn) {
	var asked atomic.Int64
	go func() {
		defer far.Close()
		// The client's greeting is a record of its own (RFC 8446, section 5.1), and is long.
		header := make([]byte, 5)
		if _, err := io.ReadFull(near, header); err != nil {
			return
		}
		greeting := io.LimitReader(near, int64(binary.BigEndian.Uint16(header[3:])))
		if _, err := io.Copy(far, io.MultiReader(bytes.NewReader(header), greeting)); err != nil {
			return
		}
		for buffer := make([]byte, 16<<10); ; {
			n, err := near.Read(buffer)
			asked.Add(int64(n))
			if _, werr := far.Write(buffer[:n]); err != nil || werr != nil {
				return
			}
		}
	}()
	buffer, swallowed := make([]byte, 16<<10), 0
	for {
		n, err := far.Read(buffer)
		if l.losing.Load() && asked.Load() > longRequest {
			// The answer holds certificates: once it is here the platform has filed them.
			if swallowed += n; swallowed > longAnswer || err != nil {
				l.lost.Add(1)
				return
			}
			continue
		}
		if _, werr := near.Write(buffer[:n]); err != nil || werr != nil {
			return
		}
	}
}

// serve listens until the test's end, and returns the URL.
func (l *loser) serve(t testing.TB, target func() string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = listener.Close() // nobody is there to hear of it
	})
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer near.Close()
				far, err := net.Dial("tcp", target())
				if err != nil {
					return
				}
				defer far.Close()
				l.pass(near, far)
			}()
		}
	}()
	return "https://" + listener.Addr().String()
}

// TestLostReplies loses the platform's answer ten times in a row, to processes of their own: to an enrollment, and to a rotation.
func TestLostReplies(t *testing.T) {
	t.Parallel()
	network := &loser{}
	var listen atomic.Value
	url := network.serve(t, func() string { return listen.Load().(string) })
	p := newPlatform(t, "--public-url", url)
	listen.Store(p.Listen)
	e := newEnrolling(t, p)
	token := e.give()
	state := filepath.Join(tempDir(t), "state")
	if err := os.Mkdir(state, 0o755); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, p: p, name: token.NodeName}
	enroll := func(flags ...string) result {
		t.Helper()
		return command(t, token.Token, nil, "powernode-agent", append([]string{
			"enroll", "--state", state, "--platform-url", url, "--ca-file", e.ca, "--tries", "1",
		}, flags...)...)
	}
	var doc struct{ Serial, Situation string }
	for i, c := range []struct{ what, flag string }{{"enroll", "--token-file=-"}, {"refresh", "--renew"}} {
		network.losing.Store(true)
		network.lost.Store(0)
		for range 10 {
			enroll(c.flag).Refused(t, 5, strings.TrimPrefix(url, "https://"))
		}
		network.losing.Store(false)
		if lost := network.lost.Load(); lost != 10 {
			t.Errorf("%s: %d answers were lost", c.what, lost)
		}
		before := n.detail().Certificates
		if len(before) != i+1 || before[0].Origin != c.what {
			t.Fatalf("%s: certificates %+v", c.what, before)
		}
		enroll(c.flag, "--output=json").Into(t, &doc)
		if after := n.detail().Certificates; len(after) != i+1 || !strings.EqualFold(doc.Serial, before[0].Serial) {
			t.Errorf("%s: certificate %s, the platform has %+v", c.what, doc.Serial, after)
		}
	}
	if n.happened("enroll.refused", "") {
		t.Errorf("events: %+v", n.detail().Events)
	}
	// The answer says what there is: another process uses it.
	enroll("--output=json").Into(t, &doc)
	if doc.Situation != "valid" {
		t.Errorf("afterwards: %+v", doc)
	}
}
