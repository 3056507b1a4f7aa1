// Package nodeclient is the enrolled node's client of the node_api.
//
// It promises that every call goes to the platform of the node's credentials over mutual TLS
// 1.3, pinned to their CA; that a renewed certificate is used from the next call on; that calls
// which only read are tried again with backoff; and that what comes back has the agreed shape: a list
// that isn't there is an error, never an empty list. The bounds and error kinds are those of package nodehttp.
//
// It trusts the platform's word on what a node should run, and nothing beyond: what a module holds is
// proven by its signature, elsewhere.
package nodeclient

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// Source gives the node's present credentials. It is asked before every call; as long as they are
// the same it returns the same pointer.
type Source interface {
	Material() (*nodehttp.Material, error)
}

// Config are the settings of a Client.
type Config struct {
	Credentials Source
	// HTTP are the settings of the connection: clock, proxy, deadlines.
	HTTP nodehttp.Options
	// Prepare, if not nil, runs before each attempt at a call; its error is the attempt's. Heard, if not nil, is told
	// what became of each attempt, and with which credentials it was made. A *enroll.Keeper has both.
	Prepare func(ctx context.Context) error
	Heard   func(m *nodehttp.Material, err error)
	// Retry says how calls that only read are tried again; the zero value means four times within
	// a minute. Notify, if not nil, is told of each attempt that failed.
	Retry  nodehttp.Backoff
	Notify func(err error, wait time.Duration)
}

// Client calls the platform. It may be used by several goroutines.
type Client struct {
	config Config

	mu       sync.Mutex
	material *nodehttp.Material
	conn     *nodehttp.Conn
	// known is the hash of the state that the platform said it has.
	known string
}

// New returns a Client. It reads the credentials, and sends nothing.
func New(c Config) (*Client, error) {
	if c.Retry == (nodehttp.Backoff{}) {
		c.Retry = nodehttp.Backoff{Tries: 4, Elapsed: time.Minute, First: 500 * time.Millisecond, Max: 10 * time.Second}
	}
	client := &Client{config: c}
	if _, _, err := client.connection(); err != nil {
		return nil, err
	}
	return client, nil
}

// Close drops the idle connections.
func (c *Client) Close() { c.drop(nil) }

// TLSConfig returns the TLS settings of the platform's other services, such as its registry: TLS
// 1.3, the CA that is pinned now, and whatever certificate the node has at the time of each handshake. Whoever goes
// on for long asks again, as the platform's CA may roll.
func (c *Client) TLSConfig() (*tls.Config, error) {
	m, err := c.config.Credentials.Material()
	if err != nil {
		return nil, err
	}
	cfg := m.TLSConfig(c.config.HTTP.Now)
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		m, err := c.config.Credentials.Material()
		if err != nil {
			return nil, err
		}
		if m.Certificate == nil {
			return &tls.Certificate{}, nil // crypto/tls's way to send none
		}
		return m.Certificate, nil
	}
	return cfg, nil
}

// connection returns the connection for the present credentials. New credentials get a new one,
// since a pooled connection would go on with the certificate that it was opened with.
func (c *Client) connection() (*nodehttp.Conn, *nodehttp.Material, error) {
	m, err := c.config.Credentials.Material()
	if err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil && c.material == m {
		return c.conn, m, nil
	}
	conn, err := nodehttp.New(m, c.config.HTTP)
	if err != nil {
		return nil, nil, err
	}
	if c.conn != nil {
		c.conn.Close()
	}
	c.conn, c.material = conn, m
	return conn, m, nil
}

// drop forgets a connection, or any if conn is nil.
func (c *Client) drop(conn *nodehttp.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil && (conn == nil || conn == c.conn) {
		c.conn.Close()
		c.conn = nil
	}
}

// do makes one attempt.
func (c *Client) do(ctx context.Context, call nodehttp.Call) error {
	if c.config.Prepare != nil {
		if err := c.config.Prepare(ctx); err != nil {
			return fmt.Errorf("%s: %w", call.Doing, err)
		}
	}
	conn, m, err := c.connection()
	if err != nil {
		return err
	}
	err = conn.Do(ctx, call)
	if c.config.Heard != nil {
		c.config.Heard(m, err)
	}
	if nodehttp.StatusOf(err) == http.StatusUnauthorized {
		// A connection that was opened before a proxy asked for client certificates would be
		// refused for as long as it lives.
		c.drop(conn)
	}
	return err
}

// read makes a call that changes nothing, again and again while there is hope.
func (c *Client) read(ctx context.Context, call nodehttp.Call) error {
	call.Method = http.MethodGet
	return c.config.Retry.Run(ctx, c.config.Notify, func(ctx context.Context) error { return c.do(ctx, call) })
}
