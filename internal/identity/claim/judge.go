package claim

import (
	"fmt"
	"net/url"
	"strings"
	"unicode"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

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
