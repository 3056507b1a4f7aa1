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

// start listens until the returned function is called.
func (l listener) start() (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(ctx)
	}()
	return func() error {
		cancel()
		<-done
		return nil
	}
}

func (l listener) run(ctx context.Context) {
	for {
		err := l.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		l.log.Warn("no notifications from PostgreSQL; tasks are found when they are looked for", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(listenRetry):
		}
	}
}

// listen waits for notifications over one connection until that is lost.
func (l listener) listen(ctx context.Context) (err error) {
	config := l.server.config.Copy()
	if err := l.server.authenticate(ctx, config); err != nil {
		return err
	}
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	// A connection that is closed like this tells the server so, for as long as that takes an instant.
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		err = errors.Join(err, c.Close(closing))
	}()
	if _, err := c.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	// What was notified while nobody listened is unknown.
	l.hub.wakeAll()
	for {
		if err := l.next(ctx, c); err != nil {
			return err
		}
	}
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
