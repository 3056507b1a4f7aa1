package reconcile

import (
	"context"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/ociimage"
)

// Plan is what the platform wants a node to run, as far as it could be had.
type Plan struct {
	// Wanted are the modules that are in the store now, in the list's order.
	Wanted []assemble.Wanted
	// Failed are those that aren't, and why.
	Failed []ModuleError
	// Expected is the root digest that the platform computed; zero where it didn't say, or not so
	// that it can be read, and then Remarks say so.
	Expected fsverity.Digest
	Pulled   Pulled
	Remarks  []string
}

// Pulled counts what was fetched.
type Pulled struct {
	Modules int `json:"modules"`
	Layers  int `json:"layers"`
	// Bytes is compressed, as it came over the network.
	Bytes      int64 `json:"bytes"`
	Objects    int64 `json:"objects"`
	NewObjects int64 `json:"new_objects"`
}

// ModuleError says why one module of the list can't be used.
type ModuleError struct {
	Module nodeapi.Module
	Err    error
}

// Err returns nil where every module was fetched, and otherwise an error that names each that
// wasn't. It is a Retry only if all of them may go well another time.
func (p *Plan) Err() error {
	switch len(p.Failed) {
	case 0:
		return nil
	case 1:
		return p.Failed[0].Err
	}
	// The first that waiting doesn't help gives kind, area and hint.
	worst := p.Failed[0].Err
	causes, texts := make([]error, len(p.Failed)), make([]string, len(p.Failed))
	for i, f := range p.Failed {
		causes[i], texts[i] = f.Err, f.Err.Error()
		if fault.KindOf(worst) == fault.Retry && fault.KindOf(f.Err) != fault.Retry {
			worst = f.Err
		}
	}
	return fault.New(fault.KindOf(worst), fault.AreaOf(worst), fault.HintOf(worst), "%d of %d modules can't be had: %w",
		len(p.Failed), len(p.Failed)+len(p.Wanted), &several{strings.Join(texts, "; "), causes})
}

// several is some errors on one line.
type several struct {
	text   string
	causes []error
}

func (s *several) Error() string   { return s.text }
func (s *several) Unwrap() []error { return s.causes }

// Platform returns the one that List asks, nil where the node has no credentials that serve.
func (r *Reconciler) Platform() Platform { return r.platform }

// List asks the platform. An empty list is nothing to run, and an error.
func (r *Reconciler) List(ctx context.Context) (*nodeapi.ModuleList, error) {
	if r.platform == nil {
		return nil, fault.New(fault.Refuse, fault.Platform, "enroll this node: powernode-agent enroll", "ask the platform for the modules: this node has no credentials that serve")
	}
	list, err := r.platform.Modules(ctx)
	if err == nil && len(list.Modules) == 0 {
		var node string
		if c := r.config.Credentials; c != nil {
			node = " " + c.InstanceID
		}
		err = fault.New(fault.Refuse, fault.Platform, "assign modules to it: powernode assign", "the platform has no modules for node%s", node)
	}
	return list, err
}

// Fetch asks the platform for its list and brings every module of it into the store that isn't
// there. An error says that there is no list to go by; a module that can't be had is in the plan's
// Failed.
func (r *Reconciler) Fetch(ctx context.Context) (*Plan, error) {
	list, err := r.List(ctx)
	if err != nil {
		return nil, err
	}
	assigned := AsAssigned(list)
	if r.config.Desire != nil {
		if assigned, err = r.config.Desire(list); err != nil {
			return nil, err
		}
	}
	plan := &Plan{Wanted: make([]assemble.Wanted, 0, len(assigned))}
	// What the platform computed is of its own list.
	if list.RootDigest != "" && slices.EqualFunc(assigned, list.Modules, func(a Assigned, m nodeapi.Module) bool { return a.ID == m.ID && a.Digest == m.Digest }) {
		if plan.Expected, err = fsverity.ParseDigest(list.RootDigest); err != nil {
			plan.Remarks = append(plan.Remarks, "the platform's root digest can't be read: "+err.Error())
		}
	}
	var outage error
	for _, m := range assigned {
		if outage != nil {
			// The patience that an outage takes is spent once, not for each module.
			plan.Failed = append(plan.Failed, ModuleError{m.Module, fault.New(fault.Retry, fault.Platform, "", "module %.80s wasn't asked for after that", fault.OneLine(m.Name))})
			continue
		}
		if err := r.fetchModule(ctx, plan, m); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			plan.Failed = append(plan.Failed, ModuleError{m.Module, err})
			if fault.KindOf(err) == fault.Retry {
				outage = err
			}
		}
	}
	return plan, nil
}

func (r *Reconciler) fetchModule(ctx context.Context, plan *Plan, m Assigned) error {
	offer, err := r.Look(ctx, m)
	if err != nil {
		return err
	}
	fetched, err := r.Bring(ctx, offer)
	if err != nil {
		return err
	}
	plan.Wanted = append(plan.Wanted, fetched.Wanted)
	plan.Pulled.Add(fetched.Pulled)
	return nil
}

// Look finds out what a wanted module is, and verifies its signature, for as long as the patience allows. It changes nothing.
func (r *Reconciler) Look(ctx context.Context, a Assigned) (*assemble.Offer, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	bounded := ctx
	if most := r.config.Patience.Look; most > 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, most)
		defer cancel()
	}
	offer, err := r.fetcher().Look(bounded, a.Module)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return nil, fault.New(fault.Retry, fault.Platform, "check the registry and the network between", "not within %s: %w", r.config.Patience.Look, err)
	}
	if err == nil && a.Accept != nil {
		err = a.Accept(offer.Wanted.ManifestDigest)
	}
	if err != nil {
		return nil, err
	}
	return offer, nil
}

// Bring has a module that was looked at in the store.
func (r *Reconciler) Bring(ctx context.Context, o *assemble.Offer) (assemble.Fetched, error) {
	return r.fetcher().Bring(ctx, o, &r.fresh)
}

// Peek reads a module that was looked at and isn't in the store, and keeps nothing of it.
func (r *Reconciler) Peek(ctx context.Context, o *assemble.Offer) (*assemble.Proven, error) {
	return r.fetcher().Peek(ctx, o)
}

// Add counts what one module needed.
func (p *Pulled) Add(s ociimage.Stats) {
	if s.Layers == 0 {
		return
	}
	p.Modules++
	p.Layers += s.Layers
	p.Bytes += s.Compressed
	p.Objects += s.Objects
	p.NewObjects += s.NewObjects
}

func (r *Reconciler) fetcher() *assemble.Fetcher {
	return &assemble.Fetcher{
		Store: r.config.Store, Source: r.source, Verifier: r.config.Verifier, Arch: r.config.Arch,
		Progress: r.config.Progress, Now: r.config.Now,
	}
}
