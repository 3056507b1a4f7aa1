package operatorcli

import (
	"context"
	"net/http"
	"os"
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

// connection is the platform that the flags choose. It is read when a command needs it.
type connection struct {
	app  *cli.App
	path string
}

// config reads the operator's credentials.
func (c *connection) config() (operatorclient.Config, error) {
	path := c.path
	if path == "" {
		path = c.app.Getenv("POWERNODE_CONFIG")
	}
	if path == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			dir = "/etc"
		}
		path = filepath.Join(dir, "powernode", operatorapi.CredentialName)
	}
	return operatorclient.LoadConfig(path)
}

// client returns a client of the operator API.
func (c *connection) client() (*operatorclient.Client, error) {
	config, err := c.config()
	if err != nil {
		return nil, err
	}
	return operatorclient.NewClient(config)
}

// registry returns a client that may push to the platform's own registry. Other registries get no
// credentials.
func (c *connection) registry(config operatorclient.Config) (*ociimage.Client, error) {
	tls, err := config.TLS()
	if err != nil {
		return nil, err
	}
	own := config.RegistryHost()
	return ociimage.NewClient(ociimage.Options{
		TLS: tls, UserAgent: "powernode", Proxy: http.ProxyFromEnvironment,
		Credential: func(_ context.Context, host string) (string, string, error) {
			if host != own {
				return "", "", nil
			}
			return operatorapi.RegistryUser, config.Token.Reveal(), nil
		},
	}), nil
}
