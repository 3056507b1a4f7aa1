package identity

import (
	"context"
	"errors"
	"fmt"
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
	// Refused, if any, reports whether the platform refused that token before: a source's token counts
	// for nothing then, and neither does the instance that goes with it.
	Refused func(token secret.Text) bool
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
				a.report.Reason = r.add(&id, group[i].Name(), a.found)
			}
			reports = append(reports, a.report)
		}
	}
	if len(id.missing()) == 0 {
		return id, reports, nil
	}
	return id, reports, incomplete(id, reports)
}

// add takes from found what id lacks and what counts. Where something was passed over it returns why.
func (r Resolver) add(id *Identity, source string, found Found) (reason string) {
	if found.Token.IsZero() || r.Refused == nil || !r.Refused(found.Token) {
		return id.add(source, found)
	}
	found.Token, found.InstanceID = secret.Text{}, ""
	reason = "its token is passed over: the platform refused it"
	if more := id.add(source, found); more != "" {
		reason += "; " + more
	}
	return reason
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
