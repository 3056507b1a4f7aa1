package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// server is a running server.
type server struct {
	// dir holds its socket and its data.
	dir string
	// alive is held open by this program alone: the server ends with it, however the program ends.
	alive io.WriteCloser

	// mu guards the administrator's connection.
	mu    sync.Mutex
	admin *pgx.Conn
}

// keeper starts a server and ends it, and removes all of it, once its standard input ends.
const keeper = `"$1/postgres" -D "$2/data" -k "$2" >"$2/log" 2>&1 & server=$!
cat
kill -QUIT $server
wait $server
rm -rf "$2"`

const settings = `
listen_addresses = ''
max_connections = 300
shared_buffers = 32MB
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 1GB
checkpoint_timeout = 1h
autovacuum = off
jit = off
timezone = 'UTC'
`

const access = `
local all ` + Guarded + ` scram-sha-256
local all all trust
`

// start makes a server in a directory of its own, and returns once it answers.
func start(bin string) (*server, error) {
	dir, err := os.MkdirTemp("", "powernode-postgres-")
	if err != nil {
		return nil, err
	}
	s, err := startIn(bin, dir)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		return nil, errors.Join(fmt.Errorf("start PostgreSQL for the tests: %w\n%s", err, log), os.RemoveAll(dir))
	}
	return s, nil
}

func startIn(bin, dir string) (*server, error) {
	attr, err := unprivileged(dir)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(context.Background(), filepath.Join(bin, "initdb"), "-D", data, "-U", admin, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	initdb.SysProcAttr, initdb.Dir = attr, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if err := appendTo(filepath.Join(data, "postgresql.conf"), settings); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(access), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.Background(), "/bin/sh", "-c", keeper, "keeper", bin, dir)
	cmd.SysProcAttr, cmd.Dir = attr, dir
	alive, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{dir: dir, alive: alive}
	if err := s.ready(); err != nil {
		// The keeper removes the directory, too.
		return nil, errors.Join(err, alive.Close(), cmd.Wait())
	}
	return s, nil
}

// ready waits until the server answers, and makes its users.
func (s *server) ready() error {
	var err error
	for begun := time.Now(); time.Since(begun) < 5*time.Minute; {
		if err = s.run("CREATE ROLE "+Owner+" LOGIN", "CREATE ROLE "+Guarded+" LOGIN PASSWORD '"+Password+"' IN ROLE "+Owner); err == nil {
			return nil
		}
		if strings.Contains(err.Error(), "CREATE ROLE") {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

// unprivileged gives the directory to the user that the server runs as, where that isn't this program's own.
func unprivileged(dir string) (*syscall.SysProcAttr, error) {
	// A group of its own: Ctrl-C is for the tests.
	attr := &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() != 0 {
		return attr, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		account, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attr, os.Chown(dir, int(uid), int(gid))
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
