package platform

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/powernode/powernode-agent/internal/platform/api"
	"github.com/powernode/powernode-agent/internal/platform/ca"
)

// drainTimeout is how long requests under way may go on once the platform is told to stop.
const drainTimeout = 20 * time.Second

// writeStall is how long a connection with HTTP/2 may take nothing of what there is for it.
const writeStall = time.Minute

// newHTTPServer sets the bounds of a connection. Bodies have none here: each handler bounds its
// own, as JSON comes at once and a blob may take an hour.
func newHTTPServer(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		// A bound on an answer ends a stream of HTTP/2, and has to be written to the connection for it: one that takes nothing would be held for ever.
		HTTP2:    &http.HTTP2Config{WriteByteTimeout: writeStall},
		ErrorLog: log.New(connectionLog{logger}, "", 0),
	}
}

// tlsConfig returns the settings of a server that shows itself, and knows its nodes, by the authorities as
// they are at each handshake.
func tlsConfig(authority *ca.CA, certificate *ca.ServerCertificate, now func() time.Time) *tls.Config {
	base := &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: certificate.GetCertificate,
		// A certificate of another platform's authority ends the handshake; that one of ours is still
		// good is judged anew at each request.
		ClientAuth: tls.VerifyClientCertIfGiven,
		Time:       now,
		// What net/http adds to its own copy, the configurations below need as well.
		NextProtos: []string{"h2", "http/1.1"},
	}
	config := base.Clone()
	// crypto/tls keeps the keys of session tickets in config, so that they outlive a handshake.
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := base.Clone()
		c.ClientCAs = authority.ClientPool()
		return c, nil
	}
	return config
}

// connectionLog takes what net/http says of single connections: noise that any stranger can make.
type connectionLog struct{ log *slog.Logger }

func (l connectionLog) Write(p []byte) (int, error) {
	l.log.Debug("connection", "text", string(p))
	return len(p), nil
}

// Serve answers until ctx ends, lets the requests under way end, and closes the platform.
func (s *Server) Serve(ctx context.Context) error {
	s.http.BaseContext = func(net.Listener) context.Context { return context.WithoutCancel(ctx) }
	s.http.TLSConfig = s.tls
	failed := make(chan error, 1)
	go func() { failed <- s.http.ServeTLS(s.listener, "", "") }()
	s.log.Info("serving", "url", s.url.String(), "listen", s.listener.Addr().String())
	select {
	case err := <-failed:
		return errors.Join(fmt.Errorf("serve HTTPS: %w", err), s.Close())
	case <-ctx.Done():
	}
	s.log.Info("stopping")
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := s.http.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		s.log.Warn("requests that didn't end in time are cut off")
		err = s.http.Close()
	}
	return errors.Join(err, s.Close())
}

// logging writes one line for each request: failures for everyone to see, the rest for who
// looks closely. It also keeps a panic in one request from being more than a failed request.
func logging(logger *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				logger.Error("panic in a request", "request", api.RequestID(r.Context()), "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", stack())
				if !seen.written {
					http.Error(seen, "internal error", http.StatusInternalServerError)
				}
			}
			level := slog.LevelDebug
			if seen.status >= http.StatusInternalServerError {
				level = slog.LevelWarn
			}
			logger.Log(r.Context(), level, "request", "method", r.Method, "path", r.URL.Path, "status", seen.status,
				"from", r.RemoteAddr, "request", api.RequestID(r.Context()), "ms", time.Since(begun).Milliseconds())
		}()
		next.ServeHTTP(seen, r)
	})
}

// statusWriter remembers the status for the log.
type statusWriter struct {
	http.ResponseWriter
	status  int
	written bool
}

// WriteHeader notes the status.
func (w *statusWriter) WriteHeader(status int) {
	if !w.written {
		w.status, w.written = status, true
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write notes that the status is out.
func (w *statusWriter) Write(p []byte) (int, error) {
	w.written = true
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
