package change

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/change/desired"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/retain"
	"github.com/powernode/powernode-agent/internal/store"
)

// wish is what a request asks for.
type wish struct {
	// assigned are to be looked at; kept stay as a generation has them.
	assigned []reconcile.Assigned
	kept     []part
	// local is the administrator's word once the change is done.
	local      desired.Local
	removeMost bool
	expected   fsverity.Digest
	// withdraws says that the generation that runs isn't wanted any more.
	withdraws bool
}

// names returns the names of all modules that are asked for.
func (w wish) names() []reconcile.Assigned {
	all := slices.Clone(w.assigned)
	for _, p := range w.kept {
		all = append(all, p.assigned)
	}
	return all
}

// wish finds out what is asked for. It changes nothing.
func (w *work) wish(ctx context.Context) (wish, error) {
	switch w.request.Kind {
	case Update:
		return w.follow(ctx)
	case Attach:
		return w.attach(ctx)
	case Detach:
		return w.detach(ctx)
	case Rollback:
		return w.rollback()
	}
	return wish{}, fault.New(fault.Broken, fault.Input, "", "a change of kind %q", w.request.Kind)
}

// follow is the platform's list, with the administrator's word, of which goes what has no effect any more.
func (w *work) follow(ctx context.Context) (wish, error) {
	list, err := w.c.Reconciler.List(ctx)
	if err != nil {
		return wish{}, err
	}
	f := desired.Follow(list, w.local)
	w.result.Detached, w.result.Remarks = f.Detached, append(w.result.Remarks, f.Remarks...)
	out := wish{assigned: f.Modules, local: w.local, removeMost: list.RemoveMost}
	for _, name := range w.local.Detached {
		if !slices.ContainsFunc(list.Modules, func(m nodeapi.Module) bool { return m.Name == name }) {
			// There is nothing more to keep away. If it is assigned again, somebody wants it.
			out.local = out.local.Follow(name)
			w.remark(notAssigned(name))
		}
	}
	if list.RootDigest != "" && len(w.local.Attached) == 0 && len(f.Detached) == 0 {
		if out.expected, err = fsverity.ParseDigest(list.RootDigest); err != nil {
			w.result.Remarks = append(w.result.Remarks, "the platform's root digest can't be read: "+err.Error())
		}
	}
	return out, nil
}

func notAssigned(name string) string {
	return fmt.Sprintf("the platform doesn't assign module %s any more: that it was detached here is forgotten", name)
}

// attach is what is staged, or else what runs, with the modules that are named.
func (w *work) attach(ctx context.Context) (wish, error) {
	kept, err := keptParts(w.c.Store, w.base)
	if err != nil {
		return wish{}, err
	}
	out := wish{kept: kept, local: w.local}
	list := &listOnce{ask: w.c.Reconciler.List}
	for _, arg := range w.request.Modules {
		if strings.Contains(arg, "/") {
			a, err := w.refer(ctx, arg)
			if err != nil {
				return wish{}, err
			}
			out.local = out.local.Attach(a)
			out.replace(a.Assigned())
			continue
		}
		if err := w.attachNamed(ctx, arg, list, &out); err != nil {
			return wish{}, err
		}
	}
	return out, nil
}

// listOnce asks the platform for its list at most once.
type listOnce struct {
	ask  func(context.Context) (*nodeapi.ModuleList, error)
	list *nodeapi.ModuleList
	err  error
}

func (l *listOnce) get(ctx context.Context) (*nodeapi.ModuleList, error) {
	if l.list == nil && l.err == nil {
		l.list, l.err = l.ask(ctx)
	}
	return l.list, l.err
}

// attachNamed takes back that a module was detached here, or takes one that was assigned since the last update. Where the
// platform can't be asked, the module is what it was when it ran here last.
func (w *work) attachNamed(ctx context.Context, arg string, list *listOnce, out *wish) error {
	l, err := list.get(ctx)
	if err == nil {
		for _, m := range l.Modules {
			if m.Name == arg || m.ID == arg {
				out.local = out.local.Follow(m.Name)
				out.replace(reconcile.Assigned{Module: m, Origin: reconcile.ByPlatform})
				return nil
			}
		}
	}
	if slices.ContainsFunc(w.base.Modules, func(m store.GenerationModule) bool { return m.Name == arg || m.ID == arg && m.ID != "" }) {
		return nil // it runs, or is staged; who doesn't assign it any more says so in the next update
	}
	if err == nil && w.local.Without(arg) {
		out.local = out.local.Follow(arg)
		w.remark(notAssigned(arg))
		return nil
	}
	if err == nil {
		return fault.New(fault.Refuse, fault.Input, "name one of another registry as host/path:tag, or assign it: powernode assign",
			"attach %.80q: the platform doesn't assign it to this node", arg)
	}
	var tooLow error
	for _, g := range slices.Backward(w.known.Generations) {
		for _, m := range g.Modules {
			if m.ID == "" || m.Name != arg && m.ID != arg || !w.local.Without(m.Name) {
				continue
			}
			p, keptErr := keptPart(w.c.Store, m)
			if keptErr != nil {
				continue
			}
			// The platform's word, which may allow it to be lower, isn't here.
			if floorErr := w.floors.Check(p.assigned, m.ManifestDigest); floorErr != nil {
				tooLow = cmp.Or(tooLow, floorErr)
				continue
			}
			w.result.Remarks = append(w.result.Remarks, fmt.Sprintf("the platform can't be asked (%s): module %s is what generation %d had", fault.OneLine(err.Error()), m.Name, g.Number))
			out.local = out.local.Follow(m.Name)
			out.kept = append(out.kept, p)
			return nil
		}
	}
	return fmt.Errorf("attach %.80q: %w", arg, cmp.Or(tooLow, err))
}

// refer resolves a reference to the module that it means now.
func (w *work) refer(ctx context.Context, arg string) (desired.Attached, error) {
	m, err := w.c.Reconciler.Refer(ctx, arg)
	if err != nil {
		return desired.Attached{}, fmt.Errorf("attach %.300s: %w", arg, err)
	}
	return desired.Attached{Name: m.Name, Version: m.Version, Repository: m.Repository, Digest: m.Digest, Priority: w.request.Priority}, nil
}

// replace has a module looked at, in the place of what has its name.
func (w *wish) replace(a reconcile.Assigned) {
	w.kept = slices.DeleteFunc(w.kept, func(p part) bool { return p.want.Name == a.Name })
	w.assigned = slices.DeleteFunc(w.assigned, func(o reconcile.Assigned) bool { return o.Name == a.Name })
	w.assigned = append(w.assigned, a)
}

// detach is what is staged, or else what runs, without the modules that are named.
func (w *work) detach(ctx context.Context) (wish, error) {
	kept, err := keptParts(w.c.Store, w.base)
	if err != nil {
		return wish{}, err
	}
	out := wish{kept: kept, local: w.local}
	list := &listOnce{ask: w.c.Reconciler.List}
	for _, arg := range w.request.Modules {
		i := slices.IndexFunc(out.kept, func(p part) bool { return p.want.Name == arg || p.want.ID == arg && arg != "" })
		switch {
		case i >= 0 && out.kept[i].assigned.Origin == reconcile.Here:
			// Taking back what was said here; what the platform says of the name counts again.
			out.local = out.local.Follow(out.kept[i].want.Name)
			out.kept = slices.Delete(out.kept, i, i+1)
		case i >= 0:
			out.local = out.local.Detach(out.kept[i].want.Name)
			out.kept = slices.Delete(out.kept, i, i+1)
		case w.local.Without(arg):
		default:
			if err := w.detachAssigned(ctx, arg, list, &out); err != nil {
				return wish{}, err
			}
		}
	}
	return out, nil
}

// detachAssigned detaches what doesn't run yet: a local attachment that couldn't be had, or an assigned module.
func (w *work) detachAssigned(ctx context.Context, arg string, list *listOnce, out *wish) error {
	if _, ok := out.local.Has(arg); ok {
		out.local = out.local.Follow(arg)
		return nil
	}
	l, err := list.get(ctx)
	if err != nil {
		return fmt.Errorf("detach %.80q, which doesn't run: %w", arg, err)
	}
	for _, m := range l.Modules {
		if m.Name == arg || m.ID == arg {
			if err := module.CheckName(m.Name); err != nil {
				return err
			}
			out.local = out.local.Detach(m.Name)
			return nil
		}
	}
	return fault.New(fault.Refuse, fault.Input, "powernode-agent status lists the modules", "detach %.80q: no such module runs or is assigned", arg)
}

// rollback is an old generation's modules. What was attached and detached here since doesn't count any more.
func (w *work) rollback() (wish, error) {
	n := w.request.Generation
	if n == 0 {
		in, _, err := retain.Read(w.c.Store)
		if err != nil {
			return wish{}, err
		}
		in.Running = w.from.Number
		if n = retain.Back(in); n == 0 {
			return wish{}, fault.New(fault.Refuse, fault.Input, "powernode-agent generations lists them", "roll back: there is no generation that was good before")
		}
	}
	if n == w.from.Number {
		return wish{}, fault.New(fault.Refuse, fault.Input, "powernode-agent generations lists them", "roll back to generation %d: it is the one that runs", n)
	}
	g, err := w.c.Store.Generation(n)
	if err != nil {
		return wish{}, err
	}
	kept, err := keptParts(w.c.Store, g)
	if err != nil {
		return wish{}, fmt.Errorf("roll back: %w", err)
	}
	out := wish{kept: kept, local: w.local, removeMost: true, withdraws: true}
	if w.request.exact != nil {
		out.local = *w.request.exact
		return out, nil
	}
	for _, a := range w.local.Attached {
		out.local = out.local.Follow(a.Name)
	}
	for _, p := range kept {
		out.local = out.local.Follow(p.want.Name)
		if p.assigned.Origin == reconcile.Here {
			out.local = out.local.Attach(desired.Attached{
				Name: p.want.Name, Version: p.want.Version, Repository: p.want.Repository, Digest: p.want.ManifestDigest, Priority: p.want.EffectivePriority,
			})
		}
	}
	w.request.Generation = n
	return out, nil
}
