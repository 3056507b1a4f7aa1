package agentcli

import (
	"context"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeconfig"
	"github.com/powernode/powernode-agent/internal/nodeconfig/apply"
)

// syncer brings the node to all that its platform says of it.
type syncer struct {
	dryRun bool
	// modules does what update does. Its document is shown with the rest; the part's name is syncer's.
	modules func(ctx context.Context) (doc *changeDoc, part syncPart, err error)
	// config reads the node's configuration.
	config func(ctx context.Context) (*nodeapi.NodeConfig, error)
	// machine opens what the configuration is about, alone for as long as it is open.
	machine func() (configured, func(), error)
}

// configured is a machine that a configuration is applied to: a *apply.Machine.
type configured interface {
	Keys(user nodeconfig.User) (apply.Change, error)
	Hostname(name string) (apply.Change, error)
	Hosts(hosts []nodeconfig.Host) (apply.Change, error)
}

// run does every part, whatever becomes of the others, modules first: they bring users. The error is that of
// the first, where each part failed.
func (s syncer) run(ctx context.Context) (*syncDoc, error) {
	doc := &syncDoc{DryRun: s.dryRun, Parts: []syncPart{}}
	modules, part, err := s.modules(ctx)
	part.Part = partModules
	if err != nil {
		part = failed(syncPart{Part: partModules}, err)
	}
	doc.Modules, doc.Parts = modules, append(doc.Parts, part)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	configErr := s.settle(ctx, doc)
	if configErr != nil {
		doc.Parts = append(doc.Parts, failed(syncPart{Part: partConfig}, configErr))
	}
	if err != nil && configErr != nil {
		return nil, err
	}
	return doc, nil
}

// settle applies the configuration. Its error is about all of it.
func (s syncer) settle(ctx context.Context, doc *syncDoc) error {
	config, err := s.config(ctx)
	if err != nil {
		return err
	}
	doc.ConfigDigest = config.Digest
	m, unlock, err := s.machine()
	if err != nil {
		return err
	}
	defer unlock()
	for _, u := range config.Users {
		doc.Parts = append(doc.Parts, s.keys(m, u))
	}
	if len(config.Users) == 0 {
		doc.Parts = append(doc.Parts, syncPart{Part: partKeys, Result: syncNotSet})
	}
	doc.Parts = append(doc.Parts, s.hostname(m, config.Hostname), s.hosts(m, config.Hosts))
	return nil
}

func (s syncer) keys(m configured, u nodeapi.UserKeys) syncPart {
	part := syncPart{Part: partKeys, User: u.Name}
	user, err := nodeconfig.ParseUser(u)
	if err != nil {
		return failed(part, fault.New(fault.Refuse, fault.Platform, "correct the node's configuration on the platform",
			"authorized keys of %.60q: %w; nothing is changed", u.Name, err))
	}
	change, err := m.Keys(user)
	return s.done(part, change, err)
}

func (s syncer) hostname(m configured, name string) syncPart {
	part := syncPart{Part: partHostname}
	if name == "" {
		part.Result = syncNotSet
		return part
	}
	name, err := nodeconfig.CheckHostname(name)
	if err != nil {
		return failed(part, fault.New(fault.Refuse, fault.Platform, "correct the node's configuration on the platform", "%w", err))
	}
	change, err := m.Hostname(name)
	return s.done(part, change, err)
}

func (s syncer) hosts(m configured, entries []nodeapi.HostEntry) syncPart {
	part := syncPart{Part: partHosts}
	if entries == nil {
		part.Result = syncNotSet
		return part
	}
	hosts, err := nodeconfig.ParseHosts(entries)
	if err != nil {
		return failed(part, fault.New(fault.Refuse, fault.Platform, "correct the node's configuration on the platform", "%w", err))
	}
	change, err := m.Hosts(hosts)
	return s.done(part, change, err)
}

// done says what a part came to.
func (s syncer) done(part syncPart, change apply.Change, err error) syncPart {
	part.Path, part.Added, part.Removed, part.Remarks = change.Path, change.Added, change.Removed, change.Remarks
	part.Result = syncInStep
	switch {
	case err != nil:
		return failed(part, err)
	case change.Changed && s.dryRun:
		part.Result = syncWouldChange
	case change.Changed:
		part.Result = syncChanged
	}
	return part
}

// failed puts an error into a part. What it was about to add or remove isn't so.
func failed(part syncPart, err error) syncPart {
	part.Result, part.Error, part.Hint, part.Added, part.Removed = syncFailed, fault.OneLine(err.Error()), fault.HintOf(err), nil, nil
	return part
}

// exit is the exit code of a sync that is done: partial, where a part failed, or left something out.
func (d *syncDoc) exit() error {
	for _, p := range d.Parts {
		if p.Result == syncFailed || p.Result == syncPartly {
			return cli.ExitStatus(cli.ExitPartial)
		}
	}
	return nil
}
