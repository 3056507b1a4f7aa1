// Package claim lets a machine that has no token become a node: it asks its platform for a claim code, shows it to whoever
// stands before the machine, and asks again until an operator has accepted the code and the platform gives a token.
//
// It promises that a machine asks with a secret of its own, which is on the disk before the first request: a restart goes on with
// the same code, and no machine that says the same MAC gets its token. The token is on the disk, too, before it is used, so that a
// restart between token and certificate costs nothing. It goes on asking through every outage of the platform, at the
// pace that the platform names, within bounds.
//
// It trusts the connection that it is given, which must have been judged as for an enrollment, and of what the platform says only
// what it checked: a code of a code's letters, a token of a token's, an instance's UUID, and of a platform URL one of the same
// origin. It must not be asked where usable credentials are on the disk: package enroll comes first.
package claim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/secret"
)

// The bounds of the pace at which a platform lets a machine ask. A tenth is added at random, so that machines that were switched on
// together don't stay so.
const (
	paceLeast = 5 * time.Second
	paceMost  = 10 * time.Minute
)

// Options are the settings of Run.
type Options struct {
	// Dir is the directory in which the claim is kept, claim.json, and nothing else. It is made if it isn't there.
	Dir string
	// PlatformURL is whom the machine asks, as nodehttp.ParsePlatformURL returns it. A claim of another platform isn't gone on with.
	PlatformURL string
	// InstanceID is the instance that the machine is to become; "" where that is for the operator to say.
	InstanceID string
	// Connect opens the connection, and judges the peer as for an enrollment. After a failure that may pass it is called again.
	Connect func(context.Context) (*nodehttp.Conn, error)
	// Machine is what the machine says of itself.
	Machine Machine
	// Show shows a code to a person: the first one, and again where it changed or something was said since.
	Show func(Sign)
	// Say, if not nil, says one line of what goes on.
	Say func(format string, args ...any)
	// Backoff says how to ask while the platform can't be reached or fails; the zero value goes on until the context ends.
	Backoff nodehttp.Backoff
	// Sleep waits between two polls; nil is the time itself.
	Sleep func(context.Context, time.Duration) error
	// Hook sees every operation on the disk before it happens (package durable); nil for none.
	Hook durable.Hook
}

// Claimed is what a machine enrolls with.
type Claimed struct {
	Token      secret.Text
	InstanceID string
	// PlatformURL is the one that was asked, or one of the same origin that the platform names.
	PlatformURL string
}

// Run asks until the machine is claimed. It ends before only with ctx, or with what asking again doesn't mend: a disk that can't be written, a
// platform that refuses to be asked, or isn't one. Calling it again goes on with the same claim. Whoever used what it returns tells
// Settle how that went.
func Run(ctx context.Context, o Options) (Claimed, error) {
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	if o.Machine.MAC == "" {
		return Claimed{}, fault.New(fault.Refuse, fault.Input, "give the machine a network card, or a bootstrap token", "claim this machine: it has no hardware address to be known by")
	}
	d, release, err := open(o)
	if err != nil {
		return Claimed{}, fmt.Errorf("claim this machine: %w", err)
	}
	defer release()
	w := waiter{Options: o, dir: d}
	if err := w.begin(); err != nil {
		return Claimed{}, fmt.Errorf("claim this machine: %w", err)
	}
	return w.wait(ctx)
}

// waiter is a claim that is under way.
type waiter struct {
	Options
	dir   *durable.Dir
	state state
	conn  *nodehttp.Conn
	// shown is the code that a person sees; "" for none.
	shown string
	// heard is the platform's last message, which is said once.
	heard string
}

func (w *waiter) wait(ctx context.Context) (Claimed, error) {
	defer w.disconnect()
	for {
		answer, err := w.poll(ctx)
		if err != nil {
			return Claimed{}, err
		}
		claimed, done, err := w.judge(answer)
		if done || err != nil {
			return claimed, err
		}
		if err := w.Sleep(ctx, pace(answer.PollAfterSeconds)); err != nil {
			return Claimed{}, fmt.Errorf("claim this machine: %w", err)
		}
	}
}

// pace returns how long to wait before asking again.
func pace(seconds int) time.Duration {
	d := paceMost
	if seconds < int(paceMost/time.Second) {
		d = max(time.Duration(seconds)*time.Second, paceLeast)
	}
	return d + rand.N(d/10)
}

// poll asks once, and through failures that may pass until there is an answer.
func (w *waiter) poll(ctx context.Context) (nodeapi.ClaimResponse, error) {
	var answer nodeapi.ClaimResponse
	failed := false
	err := w.Backoff.Run(ctx, func(err error, wait time.Duration) {
		failed = true
		w.Say("%v; asking again in %s", err, wait.Round(100*time.Millisecond))
	}, func(ctx context.Context) error {
		if w.conn == nil {
			conn, err := w.Connect(ctx)
			if err != nil {
				return err
			}
			w.conn = conn
		}
		answer = nodeapi.ClaimResponse{}
		err := w.conn.Do(ctx, nodehttp.Call{
			Doing: "claim this machine", Method: http.MethodPost, Path: nodeapi.PathClaim, Into: &answer,
			Secrets: []secret.Text{secret.New(w.state.ClaimKey)}, Body: w.request(),
		})
		if err != nil {
			// The next one is judged anew: the clock may have been wrong.
			w.disconnect()
		}
		return err
	})
	if failed {
		w.shown = "" // the lines above have pushed it away
	}
	if err != nil {
		return answer, explain(err)
	}
	return answer, nil
}

func (w *waiter) disconnect() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}

func (w *waiter) request() nodeapi.ClaimRequest {
	m := w.Machine
	return nodeapi.ClaimRequest{
		MAC: w.state.MAC, DMIUUID: m.DMIUUID, Hostname: m.Hostname, AgentVersion: m.AgentVersion, Architecture: m.Architecture,
		PlatformHint: m.Hint, ClaimKey: w.state.ClaimKey,
	}
}

// explain gives the refusals of a claim their remedies.
func explain(err error) error {
	switch status := nodehttp.StatusOf(err); {
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed:
		return fault.New(fault.Refuse, fault.Platform, "give the machine a bootstrap token", "%w: this platform takes in no machines by claim codes", err)
	case status >= 400 && status < 500 && fault.KindOf(err) == fault.Refuse:
		return fault.New(fault.Refuse, fault.Platform, "give the machine a bootstrap token, or bring agent and platform to one version", "%w", err)
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
