package ociimage

import (
	"context"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/powernode/powernode-agent/internal/secret"
)

// Access opens a repository: a user with a password, or a token that goes to the registry as it is. The zero value is nothing,
// with which a registry's token service may still be asked for what everybody gets.
type Access struct {
	Username string
	Password secret.Text
	Token    secret.Text
}

// credential asks Access for what the library wants to know. The library knows the repository by the scopes of the request.
func (o *Options) credential(ctx context.Context, host string) (auth.Credential, error) {
	var repository string
	for _, scope := range auth.GetAllScopesForHost(ctx, host) {
		// "repository:path:actions"; a path holds no colon.
		if parts := strings.Split(scope, ":"); len(parts) == 3 && parts[0] == "repository" {
			repository = parts[1]
			break
		}
	}
	a, err := o.Access(ctx, host, repository)
	return auth.Credential{Username: a.Username, Password: a.Password.Reveal(), AccessToken: a.Token.Reveal()}, err
}
