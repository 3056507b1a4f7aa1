package operatorcli

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

// maxDockerConfig bounds that file, in bytes.
const maxDockerConfig = 1 << 20

// dockerLogin returns the user and password that "docker login" and the like have kept for a registry's host[:port], empty for none.
// They are in config.json in $DOCKER_CONFIG or ~/.docker, by host: so none ever goes to a host that a person hasn't logged in to.
func dockerLogin(getenv func(string) string, host string) (user, password string, err error) {
	path := dockerConfigPath(getenv)
	if path == "" {
		return "", "", nil
	}
	data, err := readDockerConfig(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	if err == nil {
		user, password, err = parseDockerConfig(data, host)
	}
	if err != nil && fault.HintOf(err) == "" {
		err = fault.New(fault.Refuse, fault.Input, "log in to "+host+" again, with docker, oras or crane", "read the login for %s from %s: %w", host, path, err)
	}
	return user, password, err
}

func dockerConfigPath(getenv func(string) string) string {
	dir := getenv("DOCKER_CONFIG")
	if home := getenv("HOME"); dir == "" && home != "" {
		dir = filepath.Join(home, ".docker")
	}
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "config.json")
}

func readDockerConfig(path string) (data []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if data, err = io.ReadAll(io.LimitReader(f, maxDockerConfig+1)); err == nil && len(data) > maxDockerConfig {
		err = fmt.Errorf("it has more than %d bytes", maxDockerConfig)
	}
	return data, err
}

// parseDockerConfig finds a host's login. Its errors hold nothing of the file.
func parseDockerConfig(data []byte, host string) (user, password string, err error) {
	var file struct {
		Auths map[string]struct {
			Auth     string `json:"auth"`
			Username string `json:"username"`
			Password string `json:"password"`
		} `json:"auths"`
		CredsStore  string            `json:"credsStore"`
		CredHelpers map[string]string `json:"credHelpers"`
	}
	if json.Unmarshal(data, &file) != nil {
		// What a decoder says may quote what it read.
		return "", "", errors.New("it isn't the JSON that is wanted")
	}
	for name, login := range file.Auths {
		if !sameHost(dockerHost(name), host) {
			continue
		}
		if login.Auth == "" && login.Username != "" && login.Password != "" {
			return login.Username, login.Password, nil
		}
		if login.Auth == "" {
			continue // it is with a helper
		}
		text, err := base64.StdEncoding.DecodeString(login.Auth)
		user, password, ok := strings.Cut(string(text), ":")
		if err != nil || !ok {
			return "", "", errors.New("the entry isn't user and password in base64")
		}
		return user, strings.TrimRight(password, "\x00"), nil
	}
	for name := range file.CredHelpers {
		if sameHost(dockerHost(name), host) {
			return "", "", helped(host)
		}
	}
	if file.CredsStore != "" {
		return "", "", helped(host)
	}
	return "", "", nil
}

// helped says that a login is with another program, which isn't run from here.
func helped(host string) error {
	return fault.New(fault.Refuse, fault.Input, "log in with DOCKER_CONFIG naming an empty directory, and publish with the same",
		"the login for %s is with a credential helper, which isn't asked", host)
}

// dockerHost is the host of an entry's name, which may be a URL.
func dockerHost(name string) string {
	name = strings.TrimPrefix(strings.TrimPrefix(name, "https://"), "http://")
	host, _, _ := strings.Cut(name, "/")
	return host
}
