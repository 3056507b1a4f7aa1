package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

const (
	// handshakes is how many nodes connect at the same time.
	handshakes = 64
	// sources is how many addresses nodes come from: one has 28,000 ports.
	sources = 8
	// spare is how many descriptors are left to what isn't a node's connection.
	spare = 200
)

type runOptions struct {
	Platforms   []side
	DatabasePID int
	Operator    string
	Credentials *credentials
	Waiting     int
	Every       time.Duration
	For, Step   time.Duration
	Bound       time.Duration
	Tasks       float64
	Rates       []float64
}

// fleet is all nodes and the operator.
type fleet struct {
	o        runOptions
	nodes    []*node
	waiting  []*node
	operator *operatorclient.Client
	// next counts the heartbeats: nodes take turns.
	next int
	// beats and dispatches are how long each took, late how much later than meant heartbeats were begun.
	beats, dispatches, late recorder
	failed, overrun         atomic.Int64
	// first is the first error of a step, or nil.
	first atomic.Pointer[error]
}

// run connects a fleet, measures it, and writes a table.
func run(ctx context.Context, o runOptions, out io.Writer) error {
	f, err := newFleet(o)
	if err != nil {
		return err
	}
	defer f.operator.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	before, err := f.usage()
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := f.connect(ctx); err != nil {
		return fmt.Errorf("connect the nodes: %w", err)
	}
	after, err := f.usage()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d nodes, %d of which wait for tasks: connected in %.1f s, by %.2f ms of the platform's processor time each; %.0f MiB before\n",
		len(f.nodes), len(f.waiting), time.Since(begun).Seconds(), float64((after.platform.cpu-before.platform.cpu).Microseconds())/1000/float64(len(f.nodes)),
		mebibytes(before.platform.resident))
	fmt.Fprintln(out, header)
	err = f.step(ctx, float64(len(f.nodes))/o.Every.Seconds(), o.For, out)
	for _, rate := range o.Rates {
		if err != nil {
			break
		}
		err = f.step(ctx, rate, o.Step, out)
	}
	if errors.Is(err, errKnee) {
		return nil
	}
	return err
}

// newFleet spreads the nodes over the platforms.
func newFleet(o runOptions) (*fleet, error) {
	f := &fleet{o: o}
	config, err := operatorclient.LoadConfig(o.Operator)
	if err != nil {
		return nil, err
	}
	if f.operator, err = operatorclient.NewClient(config); err != nil {
		return nil, err
	}
	cas, err := nodehttp.ParseCAs(o.Credentials.Authorities)
	if err != nil {
		return nil, err
	}
	all := (&nodehttp.Material{CAs: cas}).TLSConfig(time.Now)
	for i, id := range o.Credentials.Nodes {
		at, err := newEndpoint(all, id, o.Platforms[i%len(o.Platforms)].host, net.IPv4(127, 0, 1, byte(1+i/len(o.Platforms)%sources)))
		if err != nil {
			return nil, err
		}
		f.nodes = append(f.nodes, newNode(id, at))
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	most := max(0, min(len(f.nodes), int(min(limit.Cur, 1<<30))-spare-len(f.nodes)))
	if o.Waiting > 0 {
		most = min(o.Waiting, len(f.nodes))
	}
	f.waiting = f.nodes[:most]
	return f, nil
}

// connect connects all nodes.
func (f *fleet) connect(ctx context.Context) error {
	group, connecting := errgroup.WithContext(ctx)
	group.SetLimit(handshakes)
	for i, n := range f.nodes {
		group.Go(func() error {
			waits := i < len(f.waiting)
			if err := n.connect(connecting, waits); err != nil {
				return err
			}
			if waits {
				n.wait(ctx, f.told)
			}
			return nil
		})
	}
	return group.Wait()
}

// told hears what came of waiting for tasks.
func (f *fleet) told(n *node, _ nodeapi.LeasedTask, err error) {
	if err != nil {
		f.fail(err)
		return
	}
	if asked := n.asked.Swap(0); asked != 0 {
		f.dispatches.add(time.Since(time.Unix(0, asked)))
	}
}

func (f *fleet) fail(err error) {
	f.failed.Add(1)
	f.first.CompareAndSwap(nil, &err)
}

// step sends heartbeats at a rate, and has the operator ask for tasks meanwhile. The heartbeats come as those of nodes that know nothing of each other:
// a Poisson process, which doesn't wait for answers.
func (f *fleet) step(ctx context.Context, rate float64, length time.Duration, out io.Writer) error {
	before, err := f.usage()
	if err != nil {
		return err
	}
	begun := time.Now()
	stepping, cancel := context.WithDeadline(ctx, begun.Add(length))
	defer cancel()
	var under sync.WaitGroup
	under.Go(func() { f.ask(ctx, stepping, &under) })
	sent := f.send(ctx, stepping, rate, &under)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	after, err := f.usage()
	if err != nil {
		return err
	}
	took := time.Since(begun)
	under.Wait()
	r := row{
		rate: rate, sent: float64(sent) / took.Seconds(), failed: f.failed.Swap(0), overrun: f.overrun.Swap(0),
		beats: f.beats.take(), dispatches: f.dispatches.take(), late: f.late.take(), used: after.since(before, took), resident: after.platform.resident, nodes: len(f.nodes),
	}
	fmt.Fprintln(out, r)
	if err := f.first.Swap(nil); err != nil {
		fmt.Fprintf(out, "  the first failure: %v\n", *err)
	}
	if r.beats.at(0.99) > f.o.Bound {
		return errKnee
	}
	return nil
}

// errKnee ends the raising of rates.
var errKnee = errors.New("the 99th percentile is beyond the bound")

// send begins heartbeats until stepping ends, and returns how many.
func (f *fleet) send(ctx, stepping context.Context, rate float64, under *sync.WaitGroup) (sent int) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for due := time.Now(); ; due = due.Add(time.Duration(rand.ExpFloat64() / rate * float64(time.Second))) {
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-stepping.Done():
				return sent
			case <-timer.C:
			}
		} else if stepping.Err() != nil {
			return sent
		}
		n := f.nodes[f.next%len(f.nodes)]
		f.next++
		if !n.beating.CompareAndSwap(false, true) {
			f.overrun.Add(1)
			continue
		}
		begun := time.Now()
		f.late.add(begun.Sub(due))
		sent++
		under.Go(func() {
			defer n.beating.Store(false)
			if err := n.beat(ctx); err != nil {
				f.fail(err)
				return
			}
			f.beats.add(time.Since(begun))
		})
	}
}

// ask has the operator ask nodes for tasks until stepping ends.
func (f *fleet) ask(ctx, stepping context.Context, under *sync.WaitGroup) {
	if len(f.waiting) == 0 || f.o.Tasks <= 0 {
		return
	}
	every := time.NewTicker(time.Duration(float64(time.Second) / f.o.Tasks))
	defer every.Stop()
	for {
		select {
		case <-stepping.Done():
			return
		case <-every.C:
		}
		n := f.waiting[rand.IntN(len(f.waiting))]
		if !n.asked.CompareAndSwap(0, time.Now().UnixNano()) {
			continue
		}
		under.Go(func() {
			if _, err := f.operator.CreateTask(ctx, n.id.ID, operatorapi.TaskCreate{Kind: string(nodeapi.TaskIntrospect)}); err != nil {
				n.asked.Store(0)
				f.fail(fmt.Errorf("ask for a task: %w", err))
			}
		})
	}
}
