package nodehttp

import (
	"strings"
	"testing"
)

func TestParseProxy(t *testing.T) {
	for _, s := range []string{"http://p.example:3128", "http://u:hunter2@10.0.0.1:8080/", "http://[::1]:1"} {
		if u, err := ParseProxy(s); err != nil || u == nil || u.Port() == "" {
			t.Errorf("%q: %v, %v", s, u, err)
		}
	}
	if u, err := ParseProxy(""); u != nil || err != nil {
		t.Errorf("no proxy: %v, %v", u, err)
	}
	for _, s := range []string{
		"p.example:3128", "https://p.example:1", "socks5://p:1", "http://u:hunter2@p", "http://u:hunter2@p:0", "http://u:hunter2@p:1/x", "http://u:hunter2@p:1?x", "http://:1",
		"http://u:hunter2@p :1", "http://u:hunter2@p:1#x", "http://u:hunter2@" + strings.Repeat("p", maxURL) + ":1",
	} {
		if _, err := ParseProxy(s); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", s, err)
		}
	}
}
