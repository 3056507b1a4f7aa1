package external

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/platform/secretfile"
	"github.com/powernode/powernode-agent/internal/secret"
)

// Flag is the option that names the credentials file.
const Flag = "--registry-credentials-file"

// Credentials are the users of the registry. One without a name isn't there.
type Credentials struct {
	// Platform is the user as whom the platform reads.
	Platform ociimage.Access
	// Nodes is the user of nodes, whose password goes to them where the registry knows nothing better.
	Nodes ociimage.Access
}

// credentials reads the file anew.
func (g *Registry) credentials() (Credentials, error) {
	if g.file == "" {
		return Credentials{}, nil
	}
	text, err := secretfile.Read(g.file, Flag)
	if err != nil {
		return Credentials{}, err
	}
	c, err := ParseCredentials([]byte(text.Reveal()))
	if err != nil {
		return Credentials{}, fault.New(fault.Refuse, fault.Input, `write {"username": "…", "password": "…"} into it, and for nodes "nodes": {"username": "…", "password": "…"}`,
			"%s: %w", g.file, err)
	}
	return c, nil
}

// user is a user in the file.
type user struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// ParseCredentials reads the credentials file's JSON. Its errors hold nothing of it.
func ParseCredentials(data []byte) (Credentials, error) {
	var file struct {
		user
		Nodes user `json:"nodes"`
	}
	if durable.DecodeJSON(data, &file) != nil {
		// What a decoder says may quote what it read.
		return Credentials{}, fmt.Errorf("it isn't the JSON that is wanted")
	}
	var c Credentials
	for _, one := range []struct {
		what string
		in   user
		into *ociimage.Access
	}{{"the platform's", file.user, &c.Platform}, {"the nodes'", file.Nodes, &c.Nodes}} {
		switch u := one.in; {
		case (u.Username == "") != (u.Password == ""):
			return Credentials{}, fmt.Errorf("%s user lacks the name or the password", one.what)
		// RFC 7617: a colon ends the user's name.
		case strings.ContainsFunc(u.Username, func(r rune) bool { return r == ':' || unicode.IsControl(r) }), strings.ContainsFunc(u.Password, unicode.IsControl):
			return Credentials{}, fmt.Errorf("%s user has a character that can't be sent", one.what)
		}
		*one.into = ociimage.Access{Username: one.in.Username, Password: secret.New(one.in.Password)}
	}
	return c, nil
}
