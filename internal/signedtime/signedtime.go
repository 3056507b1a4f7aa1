// Package signedtime asks a platform what the time is, so that a machine whose own clock is wrong can judge
// certificates all the same.
//
// It promises that a time counts only if a pinned CA signed it, or a CA that one of these vouches for, over a
// nonce that was made for this one question, and if those CAs are valid at that very time; that the key of a
// server, stolen long ago, is not enough to say that its certificate hasn't ended; that neither is the key of a CA
// which ended before a time that was signed since; that a time before this program was written is refused; and that without a signed time a Clock never says a time before that.
//
// It trusts the pinned CAs, the kernel's clock of the time since power-on, and the file that it wrote itself. It
// doesn't trust the machine's clock, nor the validity of the server's certificate, which is what the time is
// asked for. Its question and the answer aren't secret.
package signedtime

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// ErrUnsigned says that a platform doesn't sign its time.
var ErrUnsigned = errors.New("this platform signs no time")

// Reading is one answer: at the local instant At it was Time at the platform, give or take Within.
type Reading struct {
	Time time.Time
	// At is the middle of the round trip, on the clock that doesn't know the time of day: the time since
	// power-on, sleep included.
	At time.Duration
	// Within is half of the round trip.
	Within time.Duration
	// CABundleSHA256 is that of the CA bundle which the platform has nodes trust, signed with the time.
	CABundleSHA256 string
	// vouched tells whether the CAs that proved this time are valid at another.
	vouched func(time.Time) error
}

// Now returns the time at the instant elapsed of the clock of At.
func (r Reading) Now(elapsed time.Duration) time.Time { return r.Time.Add(elapsed - r.At) }

// Vouched returns nil if the CAs that proved this time are valid at another time, too: else what was signed may be by
// the key of one that has ended.
func (r Reading) Vouched(at time.Time) error {
	if r.vouched == nil {
		return errors.New("nothing proved this time")
	}
	return r.vouched(at)
}

// Ask makes one attempt to learn the time from m's platform. m's certificate isn't shown: it may have ended.
// Of o the clock doesn't count. A failure to reach the platform has the kind that package nodehttp gives it; a
// platform without signed time is fault.Refuse with ErrUnsigned in the chain; an answer that isn't proven is
// fault.Refuse.
func Ask(ctx context.Context, m *nodehttp.Material, o nodehttp.Options) (Reading, error) {
	return ask(ctx, m, o, sincePowerOn)
}

func ask(ctx context.Context, m *nodehttp.Material, o nodehttp.Options, elapsed func() time.Duration) (Reading, error) {
	o.AnyTime = true
	bare := *m
	bare.Certificate = nil
	conn, err := nodehttp.New(&bare, o)
	if err != nil {
		return Reading{}, err
	}
	defer conn.Close()
	nonce := newNonce()
	var answer nodeapi.TimeResponse
	start := elapsed()
	err = conn.Do(ctx, nodehttp.Call{
		Doing: "ask for the time", Method: http.MethodPost, Path: nodeapi.PathTime,
		Body: nodeapi.TimeRequest{Nonce: nonce}, Into: &answer,
	})
	end := elapsed()
	if nodehttp.StatusOf(err) == http.StatusNotFound || nodehttp.CodeOf(err) == nodeapi.CodeNotFound {
		return Reading{}, fault.New(fault.Refuse, fault.Platform,
			"update the platform, or tell the node clock=local to judge certificates by this machine's clock",
			"ask for the time at %s: %w", conn.URL(), ErrUnsigned)
	}
	if err != nil {
		return Reading{}, err
	}
	t, vouched, err := judge(answer, nonce, m.CAs)
	if err != nil {
		return Reading{}, fault.New(fault.Refuse, fault.Platform, "check that nothing intercepts the connection, and the CA certificate that the node was given",
			"ask for the time at %s: the platform's answer is refused: %w", conn.URL(), err)
	}
	half := (end - start) / 2
	return Reading{Time: t, At: start + half, Within: half, CABundleSHA256: answer.CABundleSHA256, vouched: vouched}, nil
}

// newNonce returns 32 random bytes in hexadecimal digits.
func newNonce() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // it never fails; it ends the process where the kernel has no random numbers
	return hex.EncodeToString(b[:])
}

// sincePowerOn is CLOCK_BOOTTIME, which nobody can set and which goes on while the machine sleeps (clock_gettime(2)).
// It stands still while a virtual machine is stopped or stored.
func sincePowerOn() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// No kernel that runs this program lacks it.
		panic(fmt.Sprintf("CLOCK_BOOTTIME: %v", err))
	}
	return time.Duration(ts.Nano())
}
