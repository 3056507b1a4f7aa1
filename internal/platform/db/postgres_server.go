package db

import (
	"context"
	"crypto/tls"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/platform/secretfile"
)

// Postgres is a server, its database and a user. ParsePostgres makes one.
type Postgres struct {
	config       *pgx.ConnConfig
	passwordFile string
	// lockWait and idleWait are the constants of these names, but for tests.
	lockWait, idleWait time.Duration
}

// ParsePostgres reads a URL of the form postgres://user@host:port/database?sslmode=…, with the parameters of PostgreSQL's own
// programs. What it doesn't say comes from their environment variables (PGHOST…). It may have no password: that is the
// content of passwordFile, read anew for each connection, unless passwordFile is "".
//
// Where it says no sslmode, a server that isn't on this machine must prove itself by a certificate (verify-full).
func ParsePostgres(text, passwordFile string) (*Postgres, error) {
	u, err := url.Parse(text)
	const form = "write postgres://user@host:5432/database"
	switch {
	case err != nil:
		// url.Error repeats the text, which may hold a password.
		return nil, fault.New(fault.Refuse, fault.Input, form, "the database's URL can't be read")
	case u.Scheme != "postgres" && u.Scheme != "postgresql":
		return nil, fault.New(fault.Refuse, fault.Input, form, "the database's URL begins with %q, not with postgres://", u.Scheme+"://")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, form, "the parameters of the database's URL can't be read")
	}
	if _, has := u.User.Password(); has || query.Has("password") || query.Has("sslpassword") {
		return nil, fault.New(fault.Refuse, fault.Input, "put it into a file that only this program may read, and name that with --database-password-file",
			"the database's URL holds a password, which every user of this machine can see in the list of processes; a key file (sslkey) has none")
	}
	config, err := pgx.ParseConfig(text)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, form, "the database's URL: %w", err)
	}
	if !query.Has("sslmode") && os.Getenv("PGSSLMODE") == "" && !local(config) {
		query.Set("sslmode", "verify-full")
		u.RawQuery = query.Encode()
		if config, err = pgx.ParseConfig(u.String()); err != nil {
			return nil, fault.New(fault.Refuse, fault.Input, form, "the database's URL: %w", err)
		}
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "powernode-platform"
	}
	config.DialFunc = dialer().DialContext
	p := &Postgres{config: config, passwordFile: passwordFile, lockWait: lockWait, idleWait: idleWait}
	return p, p.authenticate(context.Background(), config.Copy())
}

// local reports whether every host of a configuration is this machine.
func local(config *pgx.ConnConfig) bool {
	hosts := []string{config.Host}
	for _, f := range config.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	for _, host := range hosts {
		ip := net.ParseIP(host)
		if !strings.HasPrefix(host, "/") && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}

// Name says which database it is, without secrets, for people.
func (p Postgres) Name() string {
	return fmt.Sprintf("%s on %s", p.config.Database, p.config.Host)
}

// Database is the database's name.
func (p Postgres) Database() string { return p.config.Database }

// URL is what ParsePostgres read, with what it added; it holds no password.
func (p Postgres) URL() string { return p.config.ConnString() }

// Unverified reports whether the server is reached over a network without proof of who it is.
func (p Postgres) Unverified() bool {
	if local(p.config) {
		return false
	}
	configs := []*tls.Config{p.config.TLSConfig}
	for _, f := range p.config.Fallbacks {
		configs = append(configs, f.TLSConfig)
	}
	for _, c := range configs {
		if c == nil || c.InsecureSkipVerify && c.VerifyPeerCertificate == nil {
			return true
		}
	}
	return false
}

// authenticate gives a new connection the password that the file holds now.
func (p Postgres) authenticate(_ context.Context, config *pgx.ConnConfig) error {
	if p.passwordFile == "" {
		return nil
	}
	password, err := secretfile.Read(p.passwordFile, "--database-password-file")
	if err != nil {
		return err
	}
	config.Password = password.Reveal()
	return nil
}

// beforeConnect is authenticate for a pool. A password that can't be read is no refusal of the request that needs a connection.
func (p Postgres) beforeConnect(ctx context.Context, config *pgx.ConnConfig) error {
	if err := p.authenticate(ctx, config); err != nil {
		return fault.New(fault.Retry, fault.General, fault.HintOf(err), "connect to the database: %w", err)
	}
	return nil
}

// connectionLost reports whether an error means that the connection was lost in the middle.
func connectionLost(err error) bool {
	_, isNet := errors.AsType[net.Error](err)
	return isNet || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, net.ErrClosed)
}
