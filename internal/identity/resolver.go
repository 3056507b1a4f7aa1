package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/secret"
)

// Status says what became of asking a source.
type Status string

// The statuses.
const (
	StatusFound   Status = "found"   // it said something
	StatusAbsent  Status = "absent"  // there is no such place, or it says nothing
	StatusInvalid Status = "invalid" // what it says is damaged or unreadable
	StatusSkipped Status = "skipped" // the identity was complete before
)

// Report is what became of asking one source.
type Report struct {
	Source string `json:"source"`
	Status Status `json:"status"`
	// Where is the file or device that was read; "" where nothing was.
	Where string `json:"where,omitempty"`
	// Fields are the fields that it gave, whether or not an earlier source gave them too:
	// "instance_id", "bootstrap_token", "platform_url", "ca", "ca_url", "ca_sha256", "proxy", "clock",
	// "dmi_uuid".
	Fields []string `json:"fields,omitempty"`
	// Reason says why it gave nothing, or why something that it gave was passed over.
	Reason   string        `json:"reason,omitempty"`
	Warnings []string      `json:"warnings,omitempty"`
	Took     time.Duration `json:"took_ns"`
	hint     string
	away     bool // the machine isn't one that it answers to
}

// Resolver asks sources in order until the identity is complete.
type Resolver struct {
	Sources []Source
	// Timeout bounds the whole, without BeforeRemote; 0 is 10 s. A source that ignores its context is
	// left behind.
	Timeout time.Duration
	// All asks every source, also when nothing is missing any more, for a person who wants to see
	// what each would say.
	All bool
	// BeforeRemote, if any, is called once before the first Remote source is asked, to wait for the
	// network. Its error is why none of them is.
	BeforeRemote func(context.Context) error
}

// Resolve returns what the sources say together: of each field, the first that is said. A token
// counts only from a source that names the chosen instance or none, since it would be another
// instance's, and an instance only from one that has no other token than the chosen one. Remote sources that follow each other are asked side by side, those that answer to this
// machine. The error, if any, says what is missing for enrolling and what each source answered; the
// identity found so far, and one report for each source in order, are returned with it.
func (r Resolver) Resolve(ctx context.Context) (Identity, []Report, error) {
	if r.Timeout == 0 {
		r.Timeout = 10 * time.Second
	}
	var id Identity
	reports := make([]Report, 0, len(r.Sources))
	left := r.Timeout
	for rest := r.Sources; len(rest) > 0; {
		n := 1
		if isRemote(rest[0]) {
			for n < len(rest) && isRemote(rest[n]) {
				n++
			}
		}
		group := rest[:n]
		rest = rest[n:]
		if id.complete() && !r.All {
			for _, s := range group {
				reports = append(reports, Report{Source: s.Name(), Status: StatusSkipped, Reason: "nothing was missing any more"})
			}
			continue
		}
		answers, took := r.askGroup(ctx, group, left)
		left -= took
		for i, a := range answers {
			if a.report.Status == StatusFound {
				a.report.Reason = id.add(group[i].Name(), a.found)
			}
			reports = append(reports, a.report)
		}
	}
	if len(id.missing()) == 0 {
		return id, reports, nil
	}
	return id, reports, incomplete(id, reports)
}

func (i Identity) complete() bool { return len(i.missing()) == 0 && i.InstanceID != "" }

// OnlyTokenMissing reports whether the platform and its CA are known, and no token: whoever is such a node may
// ask the platform to be claimed.
func (i Identity) OnlyTokenMissing() bool {
	if !i.Token.IsZero() {
		return false
	}
	i.Token = secret.New("any")
	return len(i.missing()) == 0
}

// incomplete is the error of an identity that doesn't suffice.
func incomplete(id Identity, reports []Report) error {
	hint := "write SERVER, KEY and CA_PEM_FILE into identity.cfg on the boot partition, or name such a file with --identity-file"
	type group struct {
		names  []string
		reason string
	}
	var groups []group // of neighbours that say the same
	for _, rep := range reports {
		if rep.Status == StatusInvalid {
			hint = "correct what " + rep.Source + " says"
			if rep.hint != "" {
				hint += ": " + rep.hint
			}
		}
		reason := rep.Reason
		switch {
		case rep.away:
			reason = "this machine isn't there"
		case reason == "":
			reason = "gives " + strings.Join(rep.Fields, ", ")
		}
		if n := len(groups); n == 0 || groups[n-1].reason != reason {
			groups = append(groups, group{reason: reason})
		}
		last := &groups[len(groups)-1]
		last.names = append(last.names, rep.Source)
	}
	why := make([]string, 0, len(groups)+1)
	if len(reports) == 0 {
		why = append(why, "no source was asked")
	}
	for _, g := range groups {
		why = append(why, strings.Join(g.names, ", ")+": "+g.reason)
	}
	return fault.New(fault.Refuse, fault.Input, hint,
		"find out who this node is: no %s (%s)", strings.Join(id.missing(), ", no "), strings.Join(why, "; "))
}

func isRemote(s Source) bool {
	_, ok := s.(Remote)
	return ok
}

// reply is what one source of a group answered.
type reply struct {
	found  Found
	report Report
}

// askGroup asks one source, or several Remote ones side by side, for at most left. It returns how long
// that took without BeforeRemote.
func (r Resolver) askGroup(ctx context.Context, group []Source, left time.Duration) ([]reply, time.Duration) {
	replies := make([]reply, len(group))
	asked := make([]bool, len(group))
	var why error
	waited := false
	for i, s := range group {
		asked[i] = true
		remote, ok := s.(Remote)
		if !ok {
			continue
		}
		here, reason := remote.Here()
		if here && r.BeforeRemote != nil && !waited {
			waited, why = true, r.BeforeRemote(ctx)
		}
		switch {
		case !here:
			asked[i], replies[i].report = false, Report{Source: s.Name(), Status: StatusAbsent, Reason: reason, away: true}
		case why != nil:
			asked[i], replies[i].report = false, Report{Source: s.Name(), Status: StatusInvalid, Reason: why.Error(), hint: fault.HintOf(why)}
		}
	}
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, left, fmt.Errorf("no answer within %s", r.Timeout))
	defer cancel()
	var wait sync.WaitGroup
	for i, s := range group {
		if asked[i] {
			wait.Go(func() { replies[i].found, replies[i].report = ask(ctx, s) })
		}
	}
	wait.Wait()
	return replies, time.Since(start)
}

// ask runs one source and doesn't wait for it beyond ctx.
func ask(ctx context.Context, s Source) (Found, Report) {
	type answer struct {
		found Found
		err   error
	}
	start := time.Now()
	ch := make(chan answer, 1)
	go func() {
		found, err := s.Find(ctx)
		ch <- answer{found, err}
	}()
	var a answer
	select {
	case a = <-ch:
	case <-ctx.Done():
		a.err = context.Cause(ctx)
	}
	rep := Report{Source: s.Name(), Status: StatusFound, Where: a.found.Where, Fields: a.found.fields(), Warnings: a.found.Warnings, Took: time.Since(start)}
	switch {
	case a.err == nil:
	case errors.Is(a.err, ErrNotFound):
		rep.Status, rep.Reason = StatusAbsent, a.err.Error()
	default:
		rep.Status, rep.Reason, rep.hint = StatusInvalid, a.err.Error(), fault.HintOf(a.err)
	}
	return a.found, rep
}

// add takes from found what id lacks. Where something was passed over it returns why.
func (id *Identity) add(source string, found Found) (reason string) {
	switch {
	case found.InstanceID == "" || id.InstanceID != "":
	case !id.Token.IsZero() && !found.Token.IsZero() && !id.Token.Equal(found.Token):
		// As of an identity.cfg that an earlier life of the disk left there.
		reason = fmt.Sprintf("its instance %s is passed over: it goes with its own token, and the one of %s counts", found.InstanceID, id.From.Token)
	default:
		id.InstanceID, id.From.InstanceID = found.InstanceID, source
	}
	switch {
	case found.Token.IsZero() || !id.Token.IsZero():
	case found.InstanceID != "" && found.InstanceID != id.InstanceID:
		reason = fmt.Sprintf("its token is passed over: it is for instance %s, and %s names %s", found.InstanceID, id.From.InstanceID, id.InstanceID)
	default:
		id.Token, id.From.Token = found.Token, source
	}
	if id.PlatformURL == "" && found.PlatformURL != "" {
		id.PlatformURL, id.From.PlatformURL = found.PlatformURL, source
	}
	// What counts as the CA is one source's word. A bundle beside an earlier source's fingerprint is
	// only where its certificate may be found.
	if len(id.CAPEM) == 0 && len(id.CASHA256) == 0 && len(found.CASHA256) > 0 {
		id.CASHA256, id.From.CASHA256 = found.CASHA256, source
	}
	if len(id.CAPEM) == 0 && len(found.CAPEM) > 0 {
		bundle, err := found.CAPEM, error(nil)
		if len(id.CASHA256) > 0 {
			bundle, err = SelectCAs(bundle, id.CASHA256)
		}
		if err != nil {
			reason = strings.TrimPrefix(reason+"; its CA is passed over: "+id.From.CASHA256+" names another fingerprint", "; ")
		} else {
			id.CAPEM, id.From.CA = bundle, source
		}
	}
	if id.CAURL == "" && found.CAURL != "" {
		id.CAURL, id.From.CAURL = found.CAURL, source
	}
	if id.Proxy.IsZero() && !found.Proxy.IsZero() {
		id.Proxy, id.From.Proxy = found.Proxy, source
	}
	if id.Clock == "" && found.Clock != "" {
		id.Clock, id.From.Clock = found.Clock, source
	}
	if id.DMIUUID == "" && found.DMIUUID != "" {
		id.DMIUUID, id.From.DMIUUID = found.DMIUUID, source
	}
	return reason
}
