package db

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"golang.org/x/sys/unix"
)

const (
	// connections is how many connections for writing, and how many for reading, one process holds; one more waits for
	// notifications. The server's usual hundred are enough for three processes.
	connections = 12
	// lockWait is how long a transaction waits for those before it, as long as SQLite's does.
	lockWait = 10 * time.Second
	// idleWait is how long a transaction may do nothing before the server ends it: its process stands still, or its machine is gone, and all
	// the other platforms wait for it.
	idleWait = 15 * time.Second
	// deadWait is how long a connection may be without an answer from the other machine's network before it counts as lost.
	deadWait = 30 * time.Second
)

// writing and reading are the settings of connections. They are set after connecting, as poolers don't pass on what is said before.
func (p Postgres) writing() string {
	return fmt.Sprintf("SET lock_timeout = %d; SET idle_in_transaction_session_timeout = %d", p.lockWait.Milliseconds(), p.idleWait.Milliseconds())
}

func (p Postgres) reading() string { return p.writing() + "; SET default_transaction_read_only = on" }

// pool makes a pool of connections with some settings. The first is made when it is needed.
func (p Postgres) pool(settings string) *sql.DB {
	pool := stdlib.OpenDB(*p.config.Copy(), stdlib.OptionBeforeConnect(p.beforeConnect),
		stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
			if settings == "" {
				return nil
			}
			_, err := c.Exec(ctx, settings)
			return err
		}))
	pool.SetMaxOpenConns(connections)
	pool.SetMaxIdleConns(connections)
	return pool
}

// dialer makes connections that find out by themselves that the other side is gone.
func dialer() *net.Dialer {
	return &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: deadWait / 2, Interval: deadWait / 6, Count: 3},
		Control: func(network, _ string, c syscall.RawConn) error {
			if !strings.HasPrefix(network, "tcp") {
				return nil
			}
			var failed error
			// tcp(7): what was sent and isn't acknowledged; keep-alives are for silence only.
			err := c.Control(func(fd uintptr) {
				failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadWait.Milliseconds()))
			})
			if err != nil {
				return err
			}
			return failed
		},
	}
}
