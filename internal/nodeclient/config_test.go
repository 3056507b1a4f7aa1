package nodeclient

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

func TestConfig(t *testing.T) {
	digest := strings.Repeat("ab", 32)
	const keys = `{"authorized_keys":"ssh-ed25519 A a\nssh-ed25519 B b","keys_count":2,"target_user":"admin"}`
	older := &nodeapi.NodeConfig{Users: []nodeapi.UserKeys{{Name: "admin", AuthorizedKeys: []string{"ssh-ed25519 A a", "ssh-ed25519 B b"}}}}
	for _, c := range []struct {
		name         string
		status       int
		config, keys string
		keysStatus   int
		want         *nodeapi.NodeConfig
		err          string
	}{
		{
			name:   "ours",
			config: `{"digest":"` + digest + `","hostname":"web","hosts":[],"users":[{"name":"root","authorized_keys":["k"]},{"name":"old","authorized_keys":[],"no_keys":true}],"more":1}`,
			want: &nodeapi.NodeConfig{Digest: digest, Hostname: "web", Hosts: []nodeapi.HostEntry{}, Users: []nodeapi.UserKeys{
				{Name: "root", AuthorizedKeys: []string{"k"}}, {Name: "old", AuthorizedKeys: []string{}, NoKeys: true},
			}},
		},
		{name: "nothing set", config: `{"digest":"` + digest + `","users":[]}`, want: &nodeapi.NodeConfig{Digest: digest, Users: []nodeapi.UserKeys{}}},
		{name: "the existing platform, which fails there", status: 500, keys: keys, want: older},
		{name: "one without that call", status: 404, keys: keys, want: older},
		{name: "the existing platform, mended", config: `{"instance":{},"node":{"disk_policy":{}}}`, keys: keys, want: older},
		{name: "an older one with no keys", status: 500, keys: `{"authorized_keys":"","keys_count":0,"target_user":"root"}`, want: &nodeapi.NodeConfig{Users: []nodeapi.UserKeys{{Name: "root"}}}},
		{name: "fewer than it says", status: 500, keys: `{"authorized_keys":"a","keys_count":2,"target_user":"root"}`, err: "says 2 keys"},
		{name: "nobody's keys", status: 500, keys: `{}`, err: "doesn't say whose"},
		{name: "keys of nobody", status: 404, keys: `{"authorized_keys":"a","keys_count":1}`, err: "doesn't say whose"},
		{name: "ours, which fails once", status: 500, keys: `{"authorized_keys":"a","keys_count":1,"target_user":"root","config":true}`, err: "500"},
		{name: "an outage meanwhile", status: 500, keysStatus: 503, err: "503"},
		{name: "an outage meanwhile, of one without that call", status: 404, keysStatus: 503, err: "503"},
		{name: "neither", status: 500, err: "500"},
		{name: "no list", config: `{"digest":"` + digest + `"}`, err: "no list of users"},
		{name: "null", config: `null`, err: "holds no data"},
		{name: "no digest that is one", config: `{"digest":"x","users":[]}`, err: "isn't the digest"},
		{name: "another shape", config: `{"digest":"` + digest + `","users":{}}`, err: "isn't as agreed"},
		{name: "twice", config: `{"digest":"` + digest + `","users":[{"name":"a"},{"name":"a"}]}`, err: "twice"},
		{name: "too many", config: `{"digest":"` + digest + `","users":[` + strings.Repeat(`{},`, nodeapi.MaxConfigUsers) + `{}]}`, err: "more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				switch {
				case r.URL.Path == nodeapi.PathConfig && c.config != "":
					_, _ = w.Write([]byte(success(c.config)))
				case r.URL.Path == nodeapi.PathConfig:
					w.WriteHeader(c.status)
					_, _ = w.Write([]byte(`{"success":false,"error":"no"}`))
				case r.URL.Path == nodeapi.PathAuthorizedKeys && c.keys != "":
					_, _ = w.Write([]byte(success(c.keys)))
				case c.keysStatus != 0:
					w.WriteHeader(c.keysStatus)
				default:
					w.WriteHeader(http.StatusNotFound)
				}
			})
			got, err := n.client.Config(t.Context())
			if c.err != "" {
				status, isStatus := strconv.Atoi(c.err)
				if err == nil || isStatus != nil && !strings.Contains(err.Error(), c.err) || isStatus == nil && nodehttp.StatusOf(err) != status {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzDecodeConfig(f *testing.F) {
	f.Add([]byte(`{"digest":"` + strings.Repeat("ab", 32) + `","users":[{"name":"root","authorized_keys":["k"]}]}`))
	f.Add([]byte(`{"hosts":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, ours, err := decodeConfig(raw)
		if (c != nil) != (ours && err == nil) || c != nil && (len(c.Digest) != 64 || len(c.Users) > nodeapi.MaxConfigUsers) {
			t.Fatalf("%+v, %v, %v", c, ours, err)
		}
	})
}
