package identity

import (
	"context"
	"time"

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
// machine. A source that takes its time, as a drive that hangs, isn't waited for before the next ones are asked,
// and what it says still goes before theirs. The error, if any, says what is missing for enrolling and what each source answered; the
// identity found so far, and one report for each source in order, are returned with it.
func (r Resolver) Resolve(ctx context.Context) (Identity, []Report, error) {
	if r.Timeout == 0 {
		r.Timeout = 10 * time.Second
	}
	ctx, cancel := context.WithCancel(ctx)
	c := course{r: r, groups: groupsOf(r.Sources), ended: make(chan int, len(r.Sources)), begun: time.Now()}
	c.run(ctx)
	cancel()
	c.asking.Wait()
	if len(c.id.missing()) == 0 {
		return c.id, c.reports, nil
	}
	return c.id, c.reports, incomplete(c.id, c.reports)
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
