package nodehttp

import (
	"net/url"
	"strconv"

	"github.com/powernode/powernode-agent/internal/fault"
)

// ParseProxy reads the URL of an HTTP proxy: http://host:port, with a user and a password where the proxy
// wants them; "" is no proxy, and nil. Its errors don't repeat the text, which may hold the password.
func ParseProxy(s string) (*url.URL, error) {
	if s == "" {
		return nil, nil
	}
	refuse := func(why string) (*url.URL, error) {
		return nil, fault.New(fault.Refuse, fault.Input, "give the proxy as http://host:port or http://user:password@host:port", "the proxy's URL %s", why)
	}
	if len(s) > maxURL {
		return refuse("is too long")
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Opaque != "" || u.Host == "":
		return refuse("isn't a URL")
	case u.Scheme != "http":
		return refuse("doesn't begin with http://: only plain HTTP proxies are spoken to, and what goes through is TLS")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return refuse("has more than a host and a port")
	case !validHost(u.Hostname()):
		return refuse("has no valid host name")
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || n == 0 {
		return refuse("has no valid port")
	}
	u.Path = ""
	return u, nil
}
