package nodeconfig

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

func TestCheck(t *testing.T) {
	a := ed(t, "alice")
	got, err := Check(nodeapi.NodeConfig{
		Digest: "whatever", Hostname: "Web-1", Hosts: []nodeapi.HostEntry{{Address: "10.0.0.5", Names: []string{"DB"}}},
		Users: []nodeapi.UserKeys{{Name: "root", AuthorizedKeys: []string{"  " + a, a}}, {Name: "old", NoKeys: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := nodeapi.NodeConfig{
		Digest: got.Digest, Hostname: "web-1", Hosts: []nodeapi.HostEntry{{Address: "10.0.0.5", Names: []string{"db"}}},
		Users: []nodeapi.UserKeys{{Name: "root", AuthorizedKeys: []string{a}}, {Name: "old", AuthorizedKeys: []string{}, NoKeys: true}},
	}
	if diff := cmp.Diff(want, got); diff != "" || len(got.Digest) != 64 {
		t.Error(diff)
	}
	again, err := Check(got)
	if err != nil || cmp.Diff(got, again) != "" {
		t.Errorf("again: %+v, %v", again, err)
	}
	empty, err := Check(nodeapi.NodeConfig{})
	if err != nil || empty.Hosts != nil || empty.Digest == got.Digest {
		t.Errorf("%+v, %v", empty, err)
	}
	none, err := Check(nodeapi.NodeConfig{Hosts: []nodeapi.HostEntry{}})
	if err != nil || none.Hosts == nil || none.Digest == empty.Digest {
		t.Errorf("no entries are another word than none said: %+v, %v", none, err)
	}
	keys := func(users ...nodeapi.UserKeys) nodeapi.NodeConfig { return nodeapi.NodeConfig{Users: users} }
	for name, c := range map[string]nodeapi.NodeConfig{
		"hostname":       {Hostname: "a_b"},
		"hosts":          {Hosts: []nodeapi.HostEntry{{Address: "x"}}},
		"user":           keys(nodeapi.UserKeys{Name: "../root", AuthorizedKeys: []string{a}}),
		"no keys unsaid": keys(nodeapi.UserKeys{Name: "root"}),
		"keys and none":  keys(nodeapi.UserKeys{Name: "root", AuthorizedKeys: []string{a}, NoKeys: true}),
		"bad key":        keys(nodeapi.UserKeys{Name: "root", AuthorizedKeys: []string{"x"}}),
		"twice":          keys(nodeapi.UserKeys{Name: "root", NoKeys: true}, nodeapi.UserKeys{Name: "root", NoKeys: true}),
		"many":           keys(make([]nodeapi.UserKeys, nodeapi.MaxConfigUsers+1)...),
	} {
		if got, err := Check(c); err == nil {
			t.Errorf("%s: accepted as %+v", name, got)
		}
	}
	big := keys()
	for _, name := range []string{"a", "b", "c"} {
		u := nodeapi.UserKeys{Name: name}
		for range nodeapi.MaxUserKeys {
			u.AuthorizedKeys = append(u.AuthorizedKeys, ed(t, strings.Repeat("x", 1000)))
		}
		big.Users = append(big.Users, u)
	}
	if _, err := Check(big); err == nil || !strings.Contains(err.Error(), "bytes, more than") {
		t.Errorf("too long: %v", err)
	}
}
