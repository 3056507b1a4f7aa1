package metrics

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
)

// Server answers GET /metrics. All of its fields but Listen are required.
type Server struct {
	// Network and Address are as ParseAddress returns them.
	Network, Address string
	Collect          func() []Metric
	Log              *slog.Logger
	// Listen opens the address; nil is the machine's.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
}

// Bounds of the server.
const (
	requestTime = 10 * time.Second
	listenAgain = time.Minute
	maxHeader   = 8 << 10
	// lifeEvery is how often the watchdog hears of a server that waits for somebody to ask.
	lifeEvery = time.Minute
)

// Run is a loop of the service (runtime.Loop).
func (s Server) Run(ctx context.Context, alive func(time.Duration)) {
	complaint := ""
	for ctx.Err() == nil {
		if err := s.serving(ctx, alive); err != nil && ctx.Err() == nil {
			if err.Error() != complaint {
				complaint = err.Error()
				s.Log.Warn("the metrics can't be served", "address", s.Address, "error", err)
			}
		}
		alive(listenAgain)
		select {
		case <-ctx.Done():
		case <-time.After(listenAgain):
		}
	}
}

// serving serves, and says all the while that it is alive.
func (s Server) serving(ctx context.Context, alive func(time.Duration)) error {
	ended := make(chan error, 1)
	go func() { ended <- s.serve(ctx) }()
	tick := time.NewTicker(lifeEvery)
	defer tick.Stop()
	for {
		alive(lifeEvery)
		select {
		case err := <-ended:
			return err
		case <-tick.C:
		}
	}
}

func (s Server) serve(ctx context.Context) error {
	if s.Network == "unix" {
		// What a service that was killed has left; anything else stays.
		if info, err := os.Lstat(s.Address); err == nil && info.Mode().Type() == fs.ModeSocket {
			if err := os.Remove(s.Address); err != nil {
				return err
			}
		}
	}
	listen := s.Listen
	if listen == nil {
		listen = new(net.ListenConfig).Listen
	}
	l, err := listen(ctx, s.Network, s.Address)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", s.answer)
	server := &http.Server{
		Handler: mux, ReadTimeout: requestTime, WriteTimeout: requestTime, IdleTimeout: requestTime, MaxHeaderBytes: maxHeader,
		ErrorLog: log.New(discard{}, "", 0),
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func (s Server) answer(w http.ResponseWriter, r *http.Request) {
	// A page of the web that a browser of this machine shows has a name of its own.
	if s.Network == "tcp" && r.Host != s.Address && r.Host != s.local() {
		http.Error(w, "ask "+s.Address, http.StatusForbidden)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_ = Write(w, s.Collect()) // who went away needs no answer
}

// local is the address by the name that this machine has for itself, and no other.
func (s Server) local() string {
	_, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		return s.Address
	}
	return net.JoinHostPort("localhost", port)
}

// WriteFile puts the metrics into a file, as a whole.
func WriteFile(dir *durable.Dir, name string, all []Metric) error {
	var b bytes.Buffer
	if err := Write(&b, all); err != nil {
		return err
	}
	return dir.WriteFile(name, b.Bytes(), 0o644, "metrics")
}
