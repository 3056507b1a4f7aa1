package operatorcli

import (
	"context"
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"strings"

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
	return operatorclient.LoadConfig(c.configPath())
}

func (c *connection) configPath() string {
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
	return path
}

// client returns a client of the operator API, which keeps the credential file in step with the platform's CA.
func (c *connection) client() (*operatorclient.Client, error) {
	config, err := c.config()
	if err != nil {
		return nil, err
	}
	client, err := operatorclient.NewClient(config)
	if err != nil {
		return nil, err
	}
	client.FollowCA(func(caPEM string, err error) { c.learnedCA(config, caPEM, err) })
	return client, nil
}

// registry returns a client that may push to the platform's own registry, which it knows by the
// platform's CA. Any other host is one of the world's: it is known by the system's certificates, and
// those in caFile where that isn't "", and gets the credentials that a person has logged in there with.
func (c *connection) registry(config operatorclient.Config, caFile string) (*ociimage.Client, error) {
	platform, err := config.TLS()
	if err != nil {
		return nil, err
	}
	var others *tls.Config
	if caFile != "" {
		if others, err = ociimage.TrustAlso(caFile, flagRegistryCA); err != nil {
			return nil, err
		}
	}
	own := config.RegistryHost()
	return ociimage.NewClient(ociimage.Options{
		UserAgent: "powernode", Proxy: http.ProxyFromEnvironment,
		TLSFor: func(host string) *tls.Config {
			if sameHost(host, own) {
				return platform
			}
			return others
		},
		Credential: func(_ context.Context, host string) (string, string, error) {
			if !sameHost(host, own) {
				return dockerLogin(c.app.Getenv, host)
			}
			return operatorapi.RegistryUser, config.Token.Reveal(), nil
		},
	}), nil
}

// sameHost says whether two host[:port] of https URLs are one.
func sameHost(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, ":443"), strings.TrimSuffix(b, ":443"))
}
