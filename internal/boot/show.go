package boot

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
)

// show prints one line of what is known, without keeping it in the journal again.
func show(w io.Writer, format string, args ...any) {
	fmt.Fprintln(w, "  "+fault.OneLine(fmt.Sprintf(format, args...)))
}

// printNode says who this machine is. No secret is among it.
func (b *boot) printNode(w io.Writer) {
	switch c, id := b.credentials, b.discovered; {
	case c != nil:
		show(w, "node %s of %s", c.InstanceID, c.PlatformURL)
		show(w, "certificate sha256:%x, until %s", sha256.Sum256(c.Leaf.Raw), c.Leaf.NotAfter.UTC().Format("2006-01-02"))
	case id.PlatformURL != "":
		show(w, "node %s of %s, not enrolled", orUnnamed(id.InstanceID), id.PlatformURL)
	default:
		show(w, "it isn't known who this machine is")
	}
	if b.persistDir != "" {
		show(w, "persist is %s", b.persistWords())
	}
}

// printNetwork says which addresses the machine has, as far as they reach further than itself.
func (b *boot) printNetwork(w io.Writer) {
	links, err := net.Interfaces()
	if err != nil {
		show(w, "network: %v", err)
		return
	}
	for _, l := range links {
		if l.Flags&net.FlagLoopback != 0 {
			continue
		}
		state := "down"
		switch {
		case l.Flags&net.FlagRunning != 0:
			state = "up"
		case l.Flags&net.FlagUp != 0:
			state = "no carrier"
		}
		addresses, _ := l.Addrs()
		words := make([]string, 0, len(addresses))
		for _, a := range addresses {
			words = append(words, a.String())
		}
		if len(words) == 0 {
			words = []string{"no address"}
		}
		show(w, "%s %s, %s: %s", l.Name, l.HardwareAddr, state, strings.Join(words, ", "))
	}
	if len(links) < 2 {
		show(w, "there is no network card that the kernel knows")
	}
}

// journalShown is how many lines of the journal the recovery environment prints.
const journalShown = 60

func (b *boot) printJournal(w io.Writer) {
	lines := b.voice.journal.snapshot().Lines
	for _, l := range lines[max(0, len(lines)-journalShown):] {
		show(w, "%9.3f %s", float64(l.Millis)/1000, l.Text)
	}
}

// prober returns what tells the platform that the machine waits, and asks it whether the node is to
// run something else than what it was told last; nil where nobody can be asked.
func (b *boot) prober() func(ctx context.Context) (bool, error) {
	client, err := b.platform()
	if err != nil {
		return nil
	}
	reported := false
	return func(ctx context.Context) (bool, error) {
		if !reported {
			// Once for each stay. A platform that doesn't take it is asked for modules all the same.
			report := b.voice.journal.snapshot().Report()
			report.Remarks = b.facts.Remarks
			reported = client.BootReport(ctx, report) == nil
		}
		before := client.assigned
		_, err := client.Modules(ctx)
		return err == nil && before != "" && client.assigned != before, err
	}
}

// platform is the node's platform, with the assignment that it named last.
type platform struct {
	*nodeclient.Client
	leaf     *x509.Certificate // whose
	assigned string
}

// Modules implements reconcile.Platform.
func (p *platform) Modules(ctx context.Context) (*nodeapi.ModuleList, error) {
	list, err := p.Client.Modules(ctx)
	if err == nil {
		p.assigned = fingerprint(list)
	}
	return list, err
}

var errNotEnrolled = errors.New("this node has no credentials that serve")

// platform returns the client of the platform for the credentials that enroll found.
func (b *boot) platform() (*platform, error) {
	if b.credentials == nil {
		return nil, errNotEnrolled
	}
	if b.client != nil && b.client.leaf.Equal(b.credentials.Leaf) {
		return b.client, nil
	}
	if b.client != nil {
		b.client.Close()
	}
	patience := b.patience()
	patience.HTTP.Now = b.now
	// What the platform says of the certificate is for the next start to know, too.
	keeper := enroll.NewKeeper(enroll.Options{Dir: PKIDir(b.store.Path()), Clock: judge{b}, HTTP: patience.HTTP})
	client, err := nodeclient.New(nodeclient.Config{
		Credentials: keeper, Heard: keeper.Heard, HTTP: patience.HTTP, Retry: patience.Retry, Notify: b.notify, Prepare: b.prepareCall,
	})
	if err != nil {
		return nil, err
	}
	b.client = &platform{Client: client, leaf: b.credentials.Leaf}
	return b.client, nil
}

// fingerprint names an assignment: equal ones are to be composed of the same.
func fingerprint(list *nodeapi.ModuleList) string {
	words := make([]string, 0, len(list.Modules))
	for _, m := range list.Modules {
		words = append(words, fmt.Sprintf("%q %q %q %q %d", m.Name, m.Version, m.Repository, m.Digest, m.EffectivePriority))
	}
	slices.Sort(words)
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(words, "\n"))))
}
