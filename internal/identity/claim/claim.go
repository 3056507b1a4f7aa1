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
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
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

// judge acts on an answer; done says that the machine is claimed.
func (w *waiter) judge(a nodeapi.ClaimResponse) (c Claimed, done bool, err error) {
	switch a.Status {
	case nodeapi.ClaimPending:
		return c, false, w.pending(a)
	case nodeapi.ClaimClaimed:
		c, err = w.claimed(a)
		return c, err == nil, err
	case nodeapi.ClaimExpired:
		if w.state.Token != "" {
			// It was used, by us: the answer was lost, and the same key gets the same certificate by it.
			return w.state.claimed(), true, nil
		}
		w.Say("this machine's claim is over; it asks for another code")
		return c, false, w.anew()
	case nodeapi.ClaimError:
		w.hear(a.Message)
		return c, false, nil
	}
	w.hear(fmt.Sprintf("the answer %q isn't known", printable(string(a.Status), 20)))
	return c, false, nil
}

// pending shows the code.
func (w *waiter) pending(a nodeapi.ClaimResponse) error {
	code, ok := nodeapi.ParseClaimCode(a.ClaimCode)
	if !ok {
		return fault.New(fault.Broken, fault.Platform, "look into the platform's log", "claim this machine at %s: the platform's code %q isn't one", w.PlatformURL, printable(a.ClaimCode, 20))
	}
	if w.state.Token != "" {
		// The platform doesn't know any more that it gave one.
		if err := w.keep("", ""); err != nil {
			return err
		}
	}
	w.hear(a.Message)
	if code == w.shown {
		return nil
	}
	w.shown = code
	if w.Show != nil {
		w.Show(Sign{Code: code, PlatformURL: w.PlatformURL})
	}
	return nil
}

// claimed checks what the platform gives, and keeps it before it is used.
func (w *waiter) claimed(a nodeapi.ClaimResponse) (Claimed, error) {
	refuse := func(err error) (Claimed, error) {
		return Claimed{}, fault.New(fault.Broken, fault.Platform, "look into the platform's log; nothing was changed on this machine",
			"claim this machine at %s: the platform's answer is refused: %w", w.PlatformURL, err)
	}
	token, err := identity.ParseToken(a.BootstrapToken)
	if err != nil {
		return refuse(err)
	}
	id, err := identity.ParseInstanceID(a.InstanceUUID)
	if err != nil {
		return refuse(err)
	}
	if w.InstanceID != "" && !strings.EqualFold(w.InstanceID, id) {
		return Claimed{}, fault.New(fault.Refuse, fault.Input, "reject the claim and accept it for that node, or correct the machine's ID",
			"claim this machine: it was accepted as instance %s, and is to be %s", id, w.InstanceID)
	}
	platform := w.PlatformURL
	if a.PlatformURL != "" {
		other, err := nodehttp.ParsePlatformURL(a.PlatformURL)
		switch {
		case err == nil && sameOrigin(other, platform):
			platform = other
		default:
			w.Say("the platform calls itself %q; this machine goes on with %s, which it was given", printable(a.PlatformURL, 100), platform)
		}
	}
	w.state.PlatformURL, w.state.Origin = platform, w.PlatformURL
	if err := w.keep(token.Reveal(), id); err != nil {
		return Claimed{}, fmt.Errorf("claim this machine: %w", err)
	}
	w.Say("this machine was claimed: it becomes node %s", id)
	return w.state.claimed(), nil
}

// hear says a message of the platform, unless it was the last one already.
func (w *waiter) hear(message string) {
	if message = printable(message, 200); message == w.heard {
		return
	}
	if w.heard = message; message != "" {
		w.Say("the platform says: %s", message)
		w.shown = ""
	}
}

// sameOrigin reports whether two platform URLs have scheme, host and port in common.
func sameOrigin(a, b string) bool {
	x, errX := url.Parse(a)
	y, errY := url.Parse(b)
	return errX == nil && errY == nil && x.Scheme == y.Scheme && x.Host == y.Host
}

// printable makes a text of the platform fit for the console: printable characters, at most most of them.
func printable(s string, most int) string {
	var b strings.Builder
	for _, c := range s {
		if most--; most < 0 {
			break
		}
		if !unicode.IsPrint(c) {
			c = ' '
		}
		b.WriteRune(c)
	}
	return strings.TrimSpace(b.String())
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

// errNothing says that there is no claim on the disk.
var errNothing = errors.New("no claim")
