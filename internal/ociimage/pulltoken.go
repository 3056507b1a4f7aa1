package ociimage

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/secret"
)

// Opening is how a repository opens to who wants to read it.
type Opening int

// The ways.
const (
	// OpenToAll needs nothing.
	OpenToAll Opening = iota
	// OpenByToken needs a token of the registry's token service.
	OpenByToken
	// OpenByPassword needs a user and a password with each request.
	OpenByPassword
)

// PullToken finds out how a repository opens, and where that is by token, exchanges a user and password at the registry's token
// service for one that is for reading this repository alone, and ends soon (a minute at least, says the services' protocol). It is
// for handing on: nothing is remembered of it here.
func (c *Client) PullToken(ctx context.Context, repository string, as Access) (Opening, secret.Text, error) {
	r, err := c.repository(repository)
	if err != nil {
		return 0, secret.Text{}, err
	}
	doing := "get a token to pull " + repository
	caught := &catcher{}
	client := *c.auth
	client.Cache = caught
	client.Credential = func(context.Context, string) (auth.Credential, error) {
		return auth.Credential{Username: as.Username, Password: as.Password.Reveal()}, nil
	}
	// No registry has it: what counts is whether it says so.
	resp, err := c.request(ctx, &client, r, "manifests/"+string(nothing), http.Header{"Accept": manifestTypes})
	switch {
	case errors.Is(err, errPassword):
		return OpenByPassword, secret.Text{}, nil
	case err != nil:
		return 0, secret.Text{}, classify(err, r.Reference.Registry, doing)
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	switch {
	case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusNotFound:
	case caught.token.IsZero(), resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden, retryable(resp.StatusCode):
		return 0, secret.Text{}, classify(answerError(resp), r.Reference.Registry, doing)
	}
	if caught.token.IsZero() {
		return OpenToAll, secret.Text{}, nil
	}
	if password := as.Password.Reveal(); password != "" && strings.Contains(caught.token.Reveal(), password) {
		return 0, secret.Text{}, fault.New(fault.Refuse, fault.Platform, "use a registry whose tokens don't hold the password",
			"%s: the token service of %s gave the password back", doing, r.Reference.Registry)
	}
	return OpenByToken, caught.token, nil
}

// nothing is a digest of no content.
const nothing = digest.Digest("sha256:0000000000000000000000000000000000000000000000000000000000000000")

// errPassword says that a registry asked for a password.
var errPassword = errors.New("the registry asks for a password")

// catcher takes the place of the library's cache of tokens: it keeps the one token that was fetched, and no password.
type catcher struct{ token secret.Text }

// GetScheme knows nothing.
func (*catcher) GetScheme(context.Context, string) (auth.Scheme, error) {
	return auth.SchemeUnknown, errdef.ErrNotFound
}

// GetToken knows nothing.
func (*catcher) GetToken(context.Context, string, auth.Scheme, string) (string, error) {
	return "", errdef.ErrNotFound
}

// Set fetches a token.
func (c *catcher) Set(ctx context.Context, _ string, scheme auth.Scheme, _ string, fetch func(context.Context) (string, error)) (string, error) {
	if scheme != auth.SchemeBearer {
		return "", errPassword
	}
	token, err := fetch(ctx)
	c.token = secret.New(token)
	return token, err
}
