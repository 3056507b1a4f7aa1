// Package operatorclient is the operator's side of the operator API: the credential file, and a
// client that speaks with the platform named in it.
//
// It promises errors that say which side to look at: nothing listening, another platform's CA,
// a token that isn't accepted. It trusts exactly the CA of the credential file, over TLS 1.3,
// and no system root. It bounds what it reads, but believes what the platform says: the trust in
// modules comes from their signatures, not from here.
package operatorclient

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/secret"
)

// configLimit bounds the credential file in bytes: a URL, a token and a few certificates.
const configLimit = 256 << 10

// Config says which platform to speak with, how to know it, and how to be known to it.
type Config struct {
	URL   string
	CAPEM string
	Token secret.Text
}

// LoadConfig reads the credential file at path. It refuses a file that others may read, as the
// token in it opens the whole platform.
func LoadConfig(path string) (Config, error) {
	const copyHint = "copy operator.json from the platform's data directory and name it with --config"
	// Without O_NONBLOCK the opening of a FIFO would wait for its writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Config{}, fault.New(fault.Refuse, fault.Input, copyHint, "open the operator's credential file: %w", err)
	case err != nil:
		return Config{}, fault.New(fault.Refuse, fault.Input, "", "open the operator's credential file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Config{}, fmt.Errorf("read the operator's credential file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return Config{}, fault.New(fault.Refuse, fault.Input, copyHint, "credential file %s: not a regular file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return Config{}, fault.New(fault.Refuse, fault.Input, "chmod 600 "+path,
			"credential file %s: mode %04o lets others read the operator's token", path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, configLimit+1))
	if err != nil {
		return Config{}, fmt.Errorf("read credential file %s: %w", path, err)
	}
	cfg, err := ParseConfig(data)
	if err != nil {
		return Config{}, fault.New(fault.Refuse, fault.Input, copyHint, "credential file %s: %w", path, err)
	}
	return cfg, nil
}

// ParseConfig reads a credential file's content and checks it.
func ParseConfig(data []byte) (Config, error) {
	if len(data) > configLimit {
		return Config{}, fmt.Errorf("longer than %d bytes", configLimit)
	}
	var file operatorapi.Credentials
	if err := json.Unmarshal(data, &file); err != nil {
		return Config{}, err
	}
	cfg := Config{URL: file.URL, CAPEM: file.CAPEM, Token: secret.New(file.Token)}
	if _, err := cfg.baseURL(); err != nil {
		return Config{}, err
	}
	if cfg.Token.IsZero() {
		return Config{}, errors.New("no token")
	}
	if strings.ContainsFunc(file.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Config{}, errors.New("the token holds characters that no token has")
	}
	if _, err := cfg.TLS(); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

// baseURL returns the platform's URL: HTTPS, a host, and nothing behind it.
func (c Config) baseURL() (*url.URL, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, fmt.Errorf("the platform's URL: %w", err)
	}
	switch {
	case u.Scheme != "https":
		return nil, fmt.Errorf("the platform's URL %q: only https is spoken", c.URL)
	case u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, fmt.Errorf("the platform's URL %q: want https://host:port", c.URL)
	}
	u.Path = ""
	return u, nil
}

// RegistryHost returns the host and port at which the platform's registry answers.
func (c Config) RegistryHost() string {
	u, err := c.baseURL()
	if err != nil {
		return ""
	}
	return u.Host
}

// TLS returns a configuration that trusts the platform's CA and nothing else, over TLS 1.3.
func (c Config) TLS() (*tls.Config, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(c.CAPEM)) {
		return nil, errors.New("ca_pem holds no certificate")
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}, nil
}
