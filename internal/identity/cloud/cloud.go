// Package cloud finds a node's identity in the user-data that a cloud's metadata service has for
// the machine: Amazon EC2, Google Compute Engine, Microsoft Azure, DigitalOcean, Hetzner.
//
// It promises that a machine whose firmware doesn't say that it is in a cloud sends no packet,
// unless a person asked for the source by name; that no packet goes anywhere but to
// 169.254.169.254, port 80: no proxy, no name that is looked up, no redirect; that a service that
// answers wrongly, endlessly or not at all costs at most Timeout; and that no error shows what the
// user-data says.
//
// It trusts that who answers at the link-local address of a machine of that cloud is the cloud,
// which made the machine and can read all of it. Package userdata reads what was got and package
// identity judges the values.
package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/identity/userdata"
)

// Timeout bounds a Find as a whole, its retries included.
const Timeout = 10 * time.Second

// margin is how much sooner than its caller's deadline a Find ends, so that its own reason is heard
// and not that the caller waited no longer.
const margin = 200 * time.Millisecond

// The sources' names.
const (
	AWS          = "aws"
	GCP          = "gcp"
	Azure        = "azure"
	DigitalOcean = "digitalocean"
	Hetzner      = "hetzner"
)

// Options say how the clouds are looked for. The zero value is right for a machine.
type Options struct {
	// Sys is the mount point of sysfs; "" is /sys.
	Sys string
	// Ask are the names of sources that are to be asked whatever the firmware says.
	Ask []string
}

// Sources returns one source for each cloud. At most one of them finds the machine to be its own.
func Sources(o Options) []Source {
	var out []Source
	for _, p := range []provider{aws(), gcp(), azure(), digitalOcean(), hetzner()} {
		out = append(out, Source{provider: p, sys: o.Sys, asked: slices.Contains(o.Ask, p.name)})
	}
	return out
}

// Source is one cloud, an identity.Remote.
type Source struct {
	provider provider
	sys      string
	asked    bool
	// transport replaces the network in tests of the time that things take; nil is the link-local
	// address.
	transport http.RoundTripper
}

// provider is what is particular to one cloud.
type provider struct {
	name, title string
	// is tells the cloud's machines by what their firmware says.
	is func(Machine) bool
	// header goes with each request; session, if any, gets it by a first one.
	header  http.Header
	session func(ctx context.Context, c client) (http.Header, error)
	// userData is the path of the user-data, probe one that every machine of this cloud has: where
	// it answers, a user-data that isn't found isn't there, and where it doesn't, the service is
	// still starting.
	userData, probe string
	// genuine, if any, checks an answer's header.
	genuine func(http.Header) error
	// decode, if any, takes off what the service itself puts around the user-data.
	decode func([]byte) ([]byte, error)
}

// Name returns the source's name: AWS, GCP, Azure, DigitalOcean or Hetzner.
func (s Source) Name() string { return s.provider.name }

// Here reports whether this machine is one of the cloud's, by what its firmware says, or whether a
// person asked for the source. It sends nothing.
func (s Source) Here() (here bool, why string) {
	m := ReadMachine(s.sys)
	switch {
	case s.asked:
		return true, "asked for by name"
	case s.provider.is(m):
		return true, "the firmware says " + s.provider.title
	default:
		return false, fmt.Sprintf("the firmware doesn't say %s (sys_vendor %.60q, product_name %.60q)", s.provider.title, m.SysVendor, m.ProductName)
	}
}

// Find asks the cloud's metadata service for the user-data, again and again while the service is
// starting, and returns what it says of the node. Where the machine isn't one of this cloud's, or
// has no user-data, or one for others, the error is identity.ErrNotFound.
func (s Source) Find(ctx context.Context) (identity.Found, error) {
	if here, why := s.Here(); !here {
		return identity.Found{}, identity.NotFound("%s", why)
	}
	data, err := s.fetch(ctx)
	if err != nil {
		return identity.Found{}, err
	}
	raw, err := userdata.Parse(data)
	if err != nil {
		return identity.Found{}, err
	}
	return raw.Check(address+s.provider.userData, nil)
}

// fetch gets the user-data.
func (s Source) fetch(ctx context.Context) ([]byte, error) {
	end := time.Now().Add(Timeout)
	if earlier, ok := ctx.Deadline(); ok && earlier.Before(end) {
		end = earlier
	}
	ctx, cancel := context.WithDeadlineCause(ctx, end.Add(-margin), errors.New("no answer, or not all of it, in the time that was left"))
	defer cancel()
	c := newClient(s.provider, s.transport)
	var last passingError
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		data, err := s.provider.fetch(ctx, c)
		passing, ok := errors.AsType[passingError](err)
		if !ok {
			return data, err
		}
		// What the service did before is a better reason than that its time was up.
		if ctx.Err() == nil || last.err == nil {
			last = passing
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, fault.New(fault.Retry, fault.Platform, last.hint,
				"ask the metadata service of %s, again and again: %w", s.provider.title, last.err)
		}
	}
}

// fetch asks once.
func (p provider) fetch(ctx context.Context, c client) ([]byte, error) {
	header := p.header
	if p.session != nil {
		var err error
		if header, err = p.session(ctx, c); err != nil {
			return nil, err
		}
	}
	a, err := c.do(ctx, http.MethodGet, p.userData, header)
	if err != nil {
		return nil, err
	}
	if a.status == http.StatusNotFound {
		return nil, p.noUserData(ctx, c, header)
	}
	data := a.body
	if p.decode != nil {
		if data, err = p.decode(data); err != nil {
			return nil, err
		}
	}
	if isHTML(data) {
		return nil, fault.New(fault.Refuse, fault.Platform, "see who answers at that address on this machine's network",
			"get %s%s: the answer is a web page and not what a metadata service says", address, p.userData)
	}
	return data, nil
}

// noUserData tells a machine without user-data from a service that isn't ready.
func (p provider) noUserData(ctx context.Context, c client, header http.Header) error {
	a, err := c.do(ctx, http.MethodGet, p.probe, header)
	switch {
	case err != nil:
		return err
	case a.status == http.StatusNotFound:
		return passingError{err: fmt.Errorf("get %s%s and %s: not found: the metadata service isn't ready, or isn't one of %s", address, p.userData, p.probe, p.title)}
	}
	return identity.NotFound("the machine %.64q of %s has no user-data", strings.TrimSpace(string(a.body)), p.title)
}

// isHTML knows a web page by how it begins: no user-data of ours does.
func isHTML(data []byte) bool {
	begin := strings.ToLower(strings.TrimSpace(string(data[:min(len(data), 512)])))
	return strings.HasPrefix(begin, "<!doctype html") || strings.HasPrefix(begin, "<html")
}
