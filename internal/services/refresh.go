package services

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

// How long an address of a name counts after the last answer that had it, and how many of one name count: servers of one name
// take turns in answers.
const (
	addressKept  = time.Hour
	addressesMax = 64
)

// Resolver looks up names, as *net.Resolver does.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Peers sets which addresses a unit may talk to, as *systemd.Manager does.
type Peers interface {
	AllowAddresses(ctx context.Context, unit string, allowed []netip.Prefix) error
}

// Egress is what is known of the names that a service may connect to, as it lies in /run/powernode/egress/UNIT.json.
type Egress struct {
	Unit string `json:"unit"`
	// Names are the addresses of each name, with the time of the last answer that had it.
	Names map[string]map[netip.Addr]time.Time `json:"names"`
	// Failed are the names that weren't resolved the last time, and why; addresses found before go on counting.
	Failed map[string]string `json:"failed,omitempty"`
	// Allowed is all that the service may talk to, besides the machine itself.
	Allowed []netip.Addr `json:"allowed"`
	// NoNameServer are the machine's name servers where none of them is open to the service: each is a cloud's metadata service.
	NoNameServer []netip.Addr `json:"no_name_server,omitempty"`
	At           time.Time    `json:"at"`
}

// Answer is what a lookup of one name gave.
type Answer struct {
	Addresses []netip.Addr
	Err       error
}

// Next returns what counts after another lookup. fixed are the addresses that count always: those of the manifest, and the name servers,
// without which the service could resolve nothing itself. An address that no answer of a DNS server may open (link-local, multicast,
// unspecified, and those of the metadata services of clouds) has to stand in the manifest.
func (e Egress) Next(fixed []netip.Addr, answers map[string]Answer, now time.Time) Egress {
	next := Egress{Unit: e.Unit, Names: make(map[string]map[netip.Addr]time.Time), Failed: make(map[string]string), At: now}
	next.Allowed = slices.Clone(fixed)
	for name, answer := range answers {
		known := make(map[netip.Addr]time.Time)
		for a, at := range e.Names[name] {
			if mayBeNamed(a) && (answer.Err != nil || now.Sub(at) < addressKept) {
				known[a] = at
			}
		}
		for _, a := range answer.Addresses {
			if a = a.Unmap().WithZone(""); mayBeNamed(a) {
				known[a] = now
			}
		}
		if answer.Err != nil {
			next.Failed[name] = fmt.Sprintf("%.*s", detailMax, answer.Err.Error())
		}
		newest := make([]netip.Addr, 0, len(known))
		for a := range known {
			newest = append(newest, a)
		}
		slices.SortFunc(newest, func(a, b netip.Addr) int { return cmp.Or(known[b].Compare(known[a]), a.Compare(b)) })
		for _, a := range newest[min(len(newest), addressesMax):] {
			delete(known, a)
		}
		next.Names[name] = known
		next.Allowed = append(next.Allowed, newest[:min(len(newest), addressesMax)]...)
	}
	slices.SortFunc(next.Allowed, netip.Addr.Compare)
	next.Allowed = slices.Compact(next.Allowed)
	return next
}

// Remark is what a person should know of it; "" for nothing.
func (e Egress) Remark() string {
	if len(e.NoNameServer) == 0 {
		return ""
	}
	return fmt.Sprintf("%s can look up no names: the machine's only name server, %s, is the metadata service of a cloud, too, and stays closed; "+
		"have a resolver run on the machine (systemd-resolved), or name that address in egress_allow", e.Unit, e.NoNameServer[0])
}

// Refresher keeps the addresses of the names that one service may connect to.
type Refresher struct {
	Resolver Resolver
	Peers    Peers
	// Run is the directory /run, ResolvConf the path of resolv.conf.
	Run, ResolvConf string
	Unit            string
	// Addresses and Names are those of egress_allow.
	Addresses []netip.Addr
	Names     []string
	Now       func() time.Time
}

// lookupTimeout bounds the lookup of one name.
const lookupTimeout = 10 * time.Second

// Refresh looks up the names and sets what the service may talk to. A name that can't be resolved isn't an error; it is in what is
// returned.
func (r Refresher) Refresh(ctx context.Context) (Egress, error) {
	var before Egress
	if err := readRecord(r.Run, egressDir, r.Unit, &before); err != nil {
		before = Egress{} // a record that isn't there or can't be read says nothing
	}
	before.Unit = r.Unit
	servers, closed := openServers(nameServers(r.ResolvConf), r.Addresses)
	next := before.Next(append(slices.Clone(r.Addresses), servers...), r.lookUp(ctx), r.Now())
	if len(servers) == 0 {
		next.NoNameServer = closed
	}
	allowed := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, a := range next.Allowed {
		allowed = append(allowed, netip.PrefixFrom(a, a.BitLen()))
	}
	return next, errors.Join(r.Peers.AllowAddresses(ctx, r.Unit, allowed), writeRecord(r.Run, egressDir, r.Unit, next))
}

// lookUp resolves all names at the same time.
func (r Refresher) lookUp(ctx context.Context) map[string]Answer {
	type named struct {
		name string
		Answer
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found := make(chan named)
	for _, name := range r.Names {
		go func() {
			addresses, err := r.Resolver.LookupNetIP(ctx, "ip", name)
			found <- named{name, Answer{addresses, err}}
		}()
	}
	answers := make(map[string]Answer, len(r.Names))
	for range r.Names {
		a := <-found
		answers[a.name] = a.Answer
	}
	return answers
}

// nameServers returns the addresses of resolv.conf(5); none where it can't be read.
func nameServers(file string) []netip.Addr {
	// Not by os.Root: it is often a link out of /etc.
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, recordMax))
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			out = append(out, a.Unmap().WithZone(""))
		}
	}
	return out
}
