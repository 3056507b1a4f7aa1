package network

import "context"

// tend does what is due on one link.
func (m *manager) tend(ctx context.Context, h *held) {
	l := h.link
	if !h.raised {
		if h.spec.auto6 {
			m.attempt(l.name, "let it follow IPv6 routers", m.system.acceptRouters(l.name))
		}
		if h.spec.mtu != 0 && h.spec.mtu != l.mtu {
			m.attempt(l.name, "set its MTU", m.system.setMTU(l.index, h.spec.mtu))
		}
		if !l.up && !m.attempt(l.name, "switch it on", m.system.up(l.index)) {
			return
		}
		h.raised = true
	}
	if !l.carrier {
		// Addresses stay: their time runs in the kernel. Where the cable comes back, perhaps to
		// another network, servers are asked again.
		h.stop()
		return
	}
	if !h.static && len(h.spec.static) > 0 {
		h.static = m.putStatic(h)
	}
	if h.spec.dhcp4 && h.keep4 == nil {
		h.keep4 = m.keep(ctx, m.options.exchanges(l, ask4), h.lease4)
	}
	m.tend6(ctx, h)
}

// tend6 asks by DHCPv6 as a person or the link's routers say.
func (m *manager) tend6(ctx context.Context, h *held) {
	want, kind := h.spec.dhcp6, ask6
	if !want && h.spec.auto6 && h.link.ra.seen {
		switch {
		case h.link.ra.managed:
			want = true
		case h.link.ra.other:
			want, kind = true, ask6Info
		}
	}
	if _, ready := h.link.linkLocal(); !want || !ready || h.keep6 != nil && h.kind6 == kind {
		return
	}
	if h.keep6 != nil {
		h.keep6.stop()
	}
	h.kind6 = kind
	h.keep6 = m.keep(ctx, m.options.exchanges(h.link, kind), h.lease6)
}

func (m *manager) keep(ctx context.Context, x exchange, before *lease) *keeper {
	ctx, stop := context.WithCancel(ctx)
	k := &keeper{exchange: x, before: before, reports: m.reports, stop: stop}
	m.keepers.Go(func() { k.run(ctx) })
	return k
}

func (h *held) stop() {
	for _, k := range []**keeper{&h.keep4, &h.keep6} {
		if *k != nil {
			(*k).stop()
			*k = nil
		}
	}
	h.problem4, h.problem6 = "", ""
}
