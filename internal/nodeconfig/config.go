package nodeconfig

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// User is an account with the keys that are to let into it.
type User struct {
	Name string
	// Keys may be empty only where the platform said that none are meant.
	Keys []Key
}

// userName is what useradd(8) accepts, and capital letters.
var userName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)

// ParseUser reads a platform's word about a user's keys. No keys are an error unless that is said to
// be meant; so are keys where none are said to be.
func ParseUser(u nodeapi.UserKeys) (User, error) {
	user := User{Name: u.Name}
	if !userName.MatchString(u.Name) {
		return user, fmt.Errorf("%.60q isn't the name of a user", u.Name)
	}
	if u.NoKeys {
		if len(u.AuthorizedKeys) > 0 {
			return user, errors.New("it holds keys, and says that there are none")
		}
		return user, nil
	}
	var err error
	user.Keys, err = ParseKeys(u.AuthorizedKeys)
	return user, err
}

// Check says what is wrong with a whole configuration, or returns it as it is kept: names in lower case,
// keys without what doesn't count, and its digest.
func Check(c nodeapi.NodeConfig) (nodeapi.NodeConfig, error) {
	out := nodeapi.NodeConfig{Users: []nodeapi.UserKeys{}}
	var err error
	if c.Hostname != "" {
		if out.Hostname, err = CheckHostname(c.Hostname); err != nil {
			return out, err
		}
	}
	hosts, err := ParseHosts(c.Hosts)
	if err != nil {
		return out, err
	}
	if c.Hosts != nil {
		out.Hosts = make([]nodeapi.HostEntry, len(hosts))
	}
	for i, h := range hosts {
		out.Hosts[i] = nodeapi.HostEntry{Address: h.Address.String(), Names: h.Names}
	}
	if len(c.Users) > nodeapi.MaxConfigUsers {
		return out, fmt.Errorf("keys of %d users, more than %d", len(c.Users), nodeapi.MaxConfigUsers)
	}
	seen := make(map[string]bool)
	for _, u := range c.Users {
		user, err := ParseUser(u)
		if err == nil && seen[u.Name] {
			err = errors.New("the user is there twice")
		}
		if err != nil {
			return out, fmt.Errorf("authorized keys of %.60s: %w", u.Name, err)
		}
		seen[u.Name] = true
		lines := make([]string, len(user.Keys))
		for i, k := range user.Keys {
			lines[i] = k.String()
		}
		out.Users = append(out.Users, nodeapi.UserKeys{Name: u.Name, AuthorizedKeys: lines, NoKeys: u.NoKeys})
	}
	if out.Digest, err = digest(out); err != nil {
		return out, err
	}
	return out, nil
}

// digest names a configuration, whose own field for it is empty.
func digest(c nodeapi.NodeConfig) (string, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	if len(data) > nodeapi.MaxNodeConfig/2 {
		return "", fmt.Errorf("a configuration of %d bytes, more than %d", len(data), nodeapi.MaxNodeConfig/2)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}
