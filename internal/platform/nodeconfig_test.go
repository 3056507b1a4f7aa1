package platform_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// sshKey returns a public key as a line, always the same for a name.
func sshKey(t *testing.T, name string) string {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	key, err := ssh.NewPublicKey(ed25519.NewKeyFromSeed(seed[:]).Public())
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + name
}

func configOf(p *platformtest.Platform, n *platformtest.Node) nodeapi.NodeConfig {
	var c nodeapi.NodeConfig
	p.Do(n, http.MethodGet, nodeapi.PathConfig, nil).Into(&c)
	return c
}

func keysOf(p *platformtest.Platform, n *platformtest.Node) (int, nodeapi.AuthorizedKeys) {
	a := p.Do(n, http.MethodGet, nodeapi.PathAuthorizedKeys, nil)
	var k nodeapi.AuthorizedKeys
	if a.Status == http.StatusOK {
		a.Into(&k)
	}
	return a.Status, k
}

func TestNodeConfig(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	n, other := p.Enroll("web-1", "amd64"), p.Enroll("web-2", "amd64")
	empty := configOf(p, n)
	if len(empty.Digest) != 64 || empty.Hosts != nil || empty.Users == nil || len(empty.Users) != 0 {
		t.Fatalf("%+v", empty)
	}
	if status, _ := keysOf(p, n); status != http.StatusNotFound {
		t.Errorf("keys of nobody: %d; the existing agent empties the file for an empty list", status)
	}
	hostname, hosts := "Web-1.example.org", []operatorapi.HostEntry{{Address: "10.0.0.5", Names: []string{"DB"}}}
	a, b := sshKey(t, "alice"), sshKey(t, "bob")
	set, err := p.Operator.ChangeNodeConfig(ctx, "web-1", operatorapi.NodeConfigChange{
		Hostname: &hostname, Hosts: &hosts,
		Users: []operatorapi.UserKeys{{Name: "deploy", AuthorizedKeys: []string{"restrict " + b, a}}, {Name: "backup", AuthorizedKeys: []string{"  " + a + " ", a}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := configOf(p, n)
	want := nodeapi.NodeConfig{
		Digest: set.Digest, Hostname: "web-1.example.org", Hosts: []nodeapi.HostEntry{{Address: "10.0.0.5", Names: []string{"db"}}},
		Users: []nodeapi.UserKeys{{Name: "backup", AuthorizedKeys: []string{a}}, {Name: "deploy", AuthorizedKeys: []string{"restrict " + b, a}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if c := configOf(p, other); c.Digest != empty.Digest {
		t.Errorf("another node's: %+v", c)
	}
	if status, k := keysOf(p, n); status != http.StatusOK || k != (nodeapi.AuthorizedKeys{AuthorizedKeys: a, KeysCount: 1, TargetUser: "backup", Config: true}) {
		t.Errorf("%d, %+v", status, k)
	}
	var beat nodeapi.HeartbeatResponse
	p.Do(n, http.MethodPost, nodeapi.PathHeartbeat, nodeapi.Heartbeat{BootID: "b", AgentVersion: "v", Architecture: "amd64", MountState: nodeapi.MountMounted}).Into(&beat)
	if beat.ConfigDigest != set.Digest {
		t.Errorf("the heartbeat tells %q, want %q", beat.ConfigDigest, set.Digest)
	}

	// The same again is no change; what isn't named stays.
	again, err := p.Operator.ChangeNodeConfig(ctx, "web-1", operatorapi.NodeConfigChange{Hostname: &hostname})
	if err != nil || cmp.Diff(set, again) != "" {
		t.Errorf("%+v, %v", again, err)
	}
	if set, err = p.Operator.ChangeNodeConfig(ctx, "web-1", operatorapi.NodeConfigChange{
		Users: []operatorapi.UserKeys{{Name: "root", AuthorizedKeys: []string{b, a}}, {Name: "backup", NoKeys: true}}, ForgetUsers: []string{"deploy"},
	}); err != nil {
		t.Fatal(err)
	}
	if len(set.Users) != 2 || set.Users[0].Name != "backup" || !set.Users[0].NoKeys || set.Users[1].Name != "root" || set.Hostname != "web-1.example.org" {
		t.Errorf("%+v", set)
	}
	if _, k := keysOf(p, n); k != (nodeapi.AuthorizedKeys{AuthorizedKeys: b + "\n" + a, KeysCount: 2, TargetUser: "root", Config: true}) {
		t.Errorf("%+v", k)
	}
	shown, err := p.Restart().Operator.NodeConfig(ctx, "web-1")
	if err != nil || cmp.Diff(set, shown) != "" {
		t.Errorf("after a restart: %+v, %v", shown, err)
	}
}

func TestNodeConfigIsRecorded(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	p.Enroll("web-1", "amd64")
	alice, bob := sshKey(t, "alice"), sshKey(t, "bob")
	web, none := "web", ""
	many := []operatorapi.HostEntry{}
	for i := range 12 {
		many = append(many, operatorapi.HostEntry{Address: fmt.Sprintf("10.0.0.%d", i+1), Names: []string{"h"}})
	}
	for _, change := range []operatorapi.NodeConfigChange{
		{},                // says nothing
		{Hostname: &none}, // and neither does this
		{Hostname: &web, Users: []operatorapi.UserKeys{{Name: "root", AuthorizedKeys: []string{alice}}}},
		{Users: []operatorapi.UserKeys{{Name: "root", AuthorizedKeys: []string{"restrict " + bob}}, {Name: "x", NoKeys: true}}},
		{Hosts: &[]operatorapi.HostEntry{}},
		{Hosts: &many, ForgetUsers: []string{"root"}, Hostname: &none},
	} {
		if _, err := p.Operator.ChangeNodeConfig(ctx, "web-1", change); err != nil {
			t.Fatal(err)
		}
	}
	detail, err := p.Operator.Node(ctx, "web-1")
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, e := range detail.Events {
		if e.Kind == "node.configured" {
			said = append(said, e.Text)
		}
	}
	if len(said) != 4 {
		t.Fatalf("%d events: %q", len(said), said)
	}
	for i, words := range [][]string{
		{"host name none instead of web", "hosts: +10.0.0.1 h", "and 4 more", "authorized keys of root: nothing is said any more"},
		{"hosts: none"},
		{"authorized keys of root: +SHA256:", "(bob) with options, -SHA256:", "(alice)", "authorized keys of x: none"},
		{"host name web instead of none", "authorized keys of root: +SHA256:", "(alice)"},
	} {
		for _, word := range words {
			if !strings.Contains(said[i], word) {
				t.Errorf("%q lacks %q", said[i], word)
			}
		}
	}
}

func TestNodeConfigIsJudged(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	p.Enroll("web-1", "amd64")
	a := sshKey(t, "alice")
	text := func(s string) *string { return &s }
	users := func(u ...operatorapi.UserKeys) operatorapi.NodeConfigChange {
		return operatorapi.NodeConfigChange{Users: u}
	}
	for want, change := range map[string]operatorapi.NodeConfigChange{
		"want letters":          {Hostname: text("a_b")},
		"isn't the address":     {Hosts: &[]operatorapi.HostEntry{{Address: "x", Names: []string{"a"}}}},
		"list of keys is empty": users(operatorapi.UserKeys{Name: "root"}),
		"doesn't print":         users(operatorapi.UserKeys{Name: "root", AuthorizedKeys: []string{a + "\nssh-rsa x"}}),
		"key 2 of 2":            users(operatorapi.UserKeys{Name: "root", AuthorizedKeys: []string{a, "ssh-rsa AAAA"}}),
		"name of a user":        users(operatorapi.UserKeys{Name: "../x", AuthorizedKeys: []string{a}}),
		"there twice":           users(operatorapi.UserKeys{Name: "x", NoKeys: true}, operatorapi.UserKeys{Name: "x", NoKeys: true}),
		"nothing is set":        {ForgetUsers: []string{"x"}},
	} {
		if _, err := p.Operator.ChangeNodeConfig(ctx, "web-1", change); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := p.Operator.NodeConfig(ctx, "nobody"); err == nil || !strings.Contains(err.Error(), "no node") {
		t.Error(err)
	}
	for _, path := range []string{nodeapi.PathConfig, nodeapi.PathAuthorizedKeys} {
		if a := p.Do(nil, http.MethodGet, path, nil); a.Status != http.StatusUnauthorized {
			t.Errorf("a stranger at %s: %d", path, a.Status)
		}
	}
	big := strings.NewReader(`{"hostname":"` + strings.Repeat("a", operatorapi.MaxConfigChange) + `"}`)
	if a := p.Do(nil, http.MethodPost, strings.ReplaceAll(operatorapi.PathNodeConfig, "{node}", "web-1"), big, "Authorization", "Bearer "+p.Config.Token.Reveal()); a.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body that is too long: %d %s", a.Status, a.Body)
	}
}
