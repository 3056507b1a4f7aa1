package db

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// channel is what PostgreSQL's notifications come by: an instance, a space and a topic.
	channel = "powernode"
	// listenPing is how long a connection that waits may be silent before it is tried, and listenRetry how long after a lost one the next is made.
	listenPing  = 30 * time.Second
	listenRetry = time.Second
)

// listener wakes a hub by the notifications of other processes.
type listener struct {
	server   Postgres
	hub      *hub
	log      *slog.Logger
	instance string
}

// start listens until the returned function is called. When it returns, nothing that is notified is missed any more, unless the server
// went away meanwhile.
func (l listener) start(ctx context.Context) (stop func() error) {
	c, err := l.connect(ctx)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(ctx, c, err)
	}()
	return func() error {
		cancel()
		<-done
		return nil
	}
}

// run waits for notifications by c, or, where err says that there is none, and after it was lost, by another connection.
func (l listener) run(ctx context.Context, c *pgx.Conn, err error) {
	for {
		for err == nil {
			err = l.next(ctx, c)
		}
		if c != nil {
			hangUp(ctx, c)
		}
		if ctx.Err() != nil {
			return
		}
		l.log.Warn("no notifications from PostgreSQL; what waits for one looks by itself", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(listenRetry):
		}
		if c, err = l.connect(ctx); err == nil {
			// What was notified while nobody listened is unknown.
			l.hub.wakeAll()
		}
	}
}

// connect makes a connection that listens.
func (l listener) connect(ctx context.Context) (*pgx.Conn, error) {
	config := l.server.config.Copy()
	if err := l.server.authenticate(ctx, config); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, listenPing)
	defer cancel()
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if _, err := c.Exec(ctx, "LISTEN "+channel); err != nil {
		hangUp(ctx, c)
		return nil, err
	}
	return c, nil
}

// hangUp closes a connection. It tells the server so, for as long as that takes an instant.
func hangUp(ctx context.Context, c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	// Whether the server heard it or finds out by itself is the same.
	_ = c.Close(ctx)
}

// next waits for one notification, or tries the connection after a silence.
func (l listener) next(ctx context.Context, c *pgx.Conn) error {
	waiting, cancel := context.WithTimeout(ctx, listenPing)
	defer cancel()
	n, err := c.WaitForNotification(waiting)
	switch {
	case err == nil:
		if from, topic, ok := strings.Cut(n.Payload, " "); ok && from != l.instance {
			l.hub.wake(topic)
		}
		return nil
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		trying, cancel := context.WithTimeout(ctx, listenPing)
		defer cancel()
		return c.Ping(trying)
	}
	return err
}
