// Package runtime is the agent as a service: what goes on in a node from the end of its boot to its
// shutdown: the heartbeat, and the gate that judges a generation on trial; a loop of any other kind stands
// beside them the same way.
//
// It promises that a loop outlives every failure of the platform, of the network and of what it
// reports on; that the intervals are bounded, spread by chance and grow while the platform doesn't
// answer; that systemd hears when the service is ready, how it is and, by the watchdog, that its
// loops really turn; and that the end of the context ends it after what is under way has had its
// time to finish.
//
// It trusts who tells it the node's state. It imports nothing of the boot.
package runtime

import (
	"context"
	"log/slog"
	"math/rand/v2"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Platform takes heartbeats. A *nodeclient.Client is one.
type Platform interface {
	Heartbeat(ctx context.Context, hb nodeapi.Heartbeat) (*nodeapi.HeartbeatResponse, error)
}

// State is what runs on the node.
type State struct {
	// Modules maps a module's ID to the OCI manifest digest ("sha256:…") that runs.
	Modules map[string]string
	// RootDigest is the fs-verity digest of the mounted root image, 64 hexadecimal digits; "" for none.
	RootDigest string
	// Level is the integrity level of the mounted root.
	Level string
	// Mount is what has been made of the modules, as the kernel's own tables say.
	Mount      nodeapi.MountState
	Generation uint64
}

// StateSource finds out what runs on the node. It is asked for each heartbeat. Beside an error it
// returns what it found out all the same: that is reported, and what it lacks is left out.
type StateSource interface {
	State(ctx context.Context) (State, error)
}

// Gate judges the generation that runs, until it has a verdict or ctx ends. reached says whether the platform has
// acknowledged a heartbeat; alive is to be called again within the time that it is given. A *health.Gate is one.
type Gate interface {
	Run(ctx context.Context, reached func() bool, alive func(time.Duration))
}

// Notifier takes messages in the form of sd_notify(3): "READY=1".
type Notifier interface {
	Notify(message string) error
}

// Config is what a Service is made of. Platform and State are required.
type Config struct {
	Platform Platform
	State    StateSource
	// Gate is nil where nothing is to be judged.
	Gate Gate
	// Beside are the other loops that run beside the heartbeats.
	Beside []Loop
	// Certificate keeps the node's certificate, and is one of the loops; nil where nobody does.
	Certificate *Certificate
	// Remarks returns what the operator should know of the node, each in a sentence; nil for nothing.
	Remarks func() []string
	// ConfigDigest returns the digest of the configuration that the node has come to; nil for none.
	ConfigDigest func() string
	// Heard hears each answer to a heartbeat, and may not wait for anybody; nil for nobody.
	Heard func(answer *nodeapi.HeartbeatResponse)
	// Load loads what the service goes by: it is ready only then, or after readyPatience; nil for nothing.
	Load func(ctx context.Context) error
	// Doing says in a few words each what the service does beside the heartbeats; nil for nothing.
	Doing func() []string
	// Proc is where procfs is; "" is /proc. Sys is where sysfs is; "" is /sys.
	Proc, Sys string
	// AgentVersion and Architecture are told to the platform; "" for Architecture is this binary's.
	AgentVersion, Architecture string
	// Notifier hears of the service's life; nil for nobody. Watchdog is the time within which
	// it wants a sign of it, 0 for never. Systemd returns both.
	Notifier Notifier
	Watchdog time.Duration
	// Timeout bounds one heartbeat, 0 is 60 s. Drain is how long one that is under way may go
	// on after the end of the context, 0 is 5 s.
	Timeout, Drain time.Duration
	// Rand returns numbers of [0,1) to spread the intervals by; nil is math/rand.
	Rand func() float64
	// Log takes what goes on; nil discards it.
	Log *slog.Logger
}

// Service is the running agent.
type Service struct {
	c Config
	// reached says that the platform has acknowledged a heartbeat.
	reached atomic.Bool
	// now asks for a heartbeat as soon as may be, hurry says that what was in its way may be gone.
	now, hurry chan struct{}

	mu   sync.Mutex
	said string // the last word about the heartbeats
	view View
}

// View is how the heartbeats are, for who looks at the service.
type View struct {
	// Acknowledged and Failed count since the service began; Last is when the last was acknowledged.
	Acknowledged, Failed uint64
	FailuresInARow       int
	Last                 time.Time
}

// View returns how the heartbeats are.
func (s *Service) View() View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view
}

func (s *Service) look(change func(v *View)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.view)
}

// New returns a Service that does nothing until Run.
func New(c Config) *Service {
	if c.Proc == "" {
		c.Proc = "/proc"
	}
	if c.Sys == "" {
		c.Sys = "/sys"
	}
	if c.AgentVersion == "" {
		c.AgentVersion = unknown
	}
	if c.Architecture == "" {
		c.Architecture = goruntime.GOARCH
	}
	if c.Timeout == 0 {
		c.Timeout = 60 * time.Second
	}
	if c.Drain == 0 {
		c.Drain = 5 * time.Second
	}
	if c.Rand == nil {
		c.Rand = rand.Float64
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{c: c, now: make(chan struct{}, 1), hurry: make(chan struct{}, 1)}
}

// Run serves until ctx ends, lets what is under way finish within the drain time, and returns nil; an
// error means that something under way couldn't be stopped. It reports itself ready as soon as Load has done its
// work: a platform that can't be reached is no reason for systemd to give up on the agent.
func (s *Service) Run(ctx context.Context) error {
	s.c.Log.Info("the agent serves", "version", s.c.AgentVersion, "architecture", s.c.Architecture)
	s.ready(ctx)
	// work outlives ctx by the drain time.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()

	beat := &heartbeat{service: s, pulse: newPulse(s.c.Timeout + grace)}
	var loops sync.WaitGroup
	loops.Go(func() { beat.run(ctx, work) })
	pulses := []*pulse{beat.pulse}
	if s.c.Gate != nil {
		p := newPulse(s.c.Timeout + grace)
		pulses = append(pulses, p)
		loops.Go(func() { s.judge(ctx, p) })
	}
	others := s.c.Beside
	if s.c.Certificate != nil {
		others = append([]Loop{s.c.Certificate}, others...)
	}
	for _, l := range others {
		p := newPulse(s.c.Timeout + grace)
		pulses = append(pulses, p)
		loops.Go(func() { s.beside(ctx, l, p) })
	}
	if s.c.Watchdog > 0 {
		loops.Go(func() { s.watch(ctx, pulses) })
	}
	ended := make(chan struct{})
	go func() { loops.Wait(); close(ended) }()

	<-ctx.Done()
	s.notify("STOPPING=1\nSTATUS=Finishing what is under way")
	select {
	case <-ended:
	case <-time.After(s.c.Drain):
		stop()
		select {
		case <-ended:
		case <-time.After(time.Second):
			return fault.New(fault.Broken, fault.General, "report this defect", "end the service: one of its loops doesn't stop")
		}
	}
	s.c.Log.Info("the agent ends")
	return nil
}
