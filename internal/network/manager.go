package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// manager is the one goroutine that knows and changes everything. Each step asks the kernel what is,
// compares it with what shall be and does what is missing; events only say when to look.
type manager struct {
	config  Config
	options Options
	system  system
	publish func(State, verdict)
	console speaker

	start    time.Time
	usable   time.Time // since when, zero while it isn't
	took     time.Duration
	up       bool // the console was told that the network can be used
	ours     map[int]*held
	others   int // links that could be used but aren't ours
	anywhere int // the link that has the static addresses that name none
	resolv   string
	reports  chan report
	keepers  sync.WaitGroup
	failed   error // the kernel can't be asked
	failures int   // so many times in a row
	looked   time.Time
	looks    int
}

// held is a link that the manager looks after.
type held struct {
	link      link
	spec      spec
	raised    bool // was switched on by us, once
	static    bool // has its static addresses
	preferred bool

	keep4, keep6   *keeper
	kind6          askKind
	lease4, lease6 *lease
	routes4        []ownRoute
	problem4       string
	problem6       string
	dns            learned[netip.Addr]
	search         learned[string]
}

func newManager(c Config, o Options, publish func(State, verdict)) *manager {
	return &manager{
		config: c, options: o, system: o.system, publish: publish, console: speaker{to: o.Console, at: time.Now()},
		start: time.Now(), ours: map[int]*held{}, reports: make(chan report),
	}
}

// A burst of events (a link with twenty addresses) is looked at once. Where the looks themselves come
// thick and fast (a flood of advertisements), it is slowly.
const (
	coalesce = 5 * time.Millisecond
	slowly   = 200 * time.Millisecond
	burst    = 30 // looks without a quiet second between them
)

// haste returns how long after an event the kernel is looked at.
func (m *manager) haste(now time.Time) time.Duration {
	if now.Sub(m.looked) > time.Second {
		m.looks = 0
	}
	if m.looked, m.looks = now, m.looks+1; m.looks > burst {
		return slowly
	}
	return coalesce
}

// Without events the kernel is asked this often.
const poll = time.Second

// A defect may show each time, or only with what is on the link at the moment.
const maxDefects = 10

// run looks after the network until ctx ends. A panic in one look isn't the end: the process may be one
// that must not end, and what it reads is anybody's who is on the link.
func (m *manager) run(ctx context.Context) {
	defer m.close()
	for range maxDefects {
		defect := m.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		m.console.remark("network: " + defect.Error())
		m.failed = defect
		if !sleep(ctx, poll) {
			return
		}
	}
	m.publish(State{Links: []Link{}}, verdict{err: fault.New(fault.Broken, fault.Platform, "report this defect", "bring the network up: %w", m.failed)})
	<-ctx.Done()
}

// follow does what the kernel's events and the keepers' reports ask for until ctx ends or something panics.
func (m *manager) follow(ctx context.Context) (defect error) {
	defer func() {
		if r := recover(); r != nil {
			defect = fmt.Errorf("a defect: %v", r)
		}
	}()
	events, stop, err := m.system.watch()
	if err != nil {
		m.deaf(err)
	} else {
		defer stop()
	}
	look := time.NewTimer(0)
	defer look.Stop()
	soon := true // look runs out within coalesce
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-events:
			switch {
			case e.err != nil:
				m.deaf(e.err)
				events = nil
			case e.advert != nil:
				m.learn(*e.advert)
			}
			if !soon {
				soon = true
				look.Reset(m.haste(time.Now()))
			}
		case r := <-m.reports:
			m.take(r)
			soon = true
			look.Reset(0)
		case <-look.C:
			soon = false
			next := m.step(ctx)
			if events == nil && (next == 0 || next > poll) {
				next = poll
			}
			if next > 0 {
				look.Reset(next)
			}
		}
	}
}

// One failure to ask the kernel may be a passing one, of memory for one.
const maxFailures = 3

// deaf is told once no events come any more.
func (m *manager) deaf(err error) {
	m.console.remark("network: " + err.Error() + "; asking it every second instead")
}

// close ends the keepers, whose ctx has ended or will by this.
func (m *manager) close() {
	for _, h := range m.ours {
		h.stop()
	}
	m.keepers.Wait()
	m.console.flush(time.Now())
}

// step brings the links nearer to what they shall be, and returns when to look again without an event.
func (m *manager) step(ctx context.Context) time.Duration {
	links, err := m.system.links()
	if err != nil {
		if m.failures++; m.failures > maxFailures {
			m.failed = err
			return cmp.Or(m.judge(), poll)
		}
		return slowly
	}
	m.failed, m.failures = nil, 0
	if lo := slices.IndexFunc(links, func(l link) bool { return l.loopback }); lo >= 0 && !links[lo].up {
		m.attempt("lo", "switch it on", m.system.up(links[lo].index))
	}
	m.chooseAnywhere(links)
	for index, h := range m.ours {
		if l := byIndex(links, index); l == nil || l.name != h.link.name {
			h.stop()
			delete(m.ours, index)
		}
	}
	m.others = 0
	for _, l := range links {
		s, ok := m.config.specFor(l, m.anywhere)
		if !ok {
			if l.physical() {
				m.others++
			}
			if h := m.ours[l.index]; h != nil { // became a part of a bond, say
				h.stop()
				delete(m.ours, l.index)
			}
			continue
		}
		h := m.ours[l.index]
		if h == nil {
			h = &held{}
			m.ours[l.index] = h
		}
		h.link, h.spec, h.preferred = l, s, m.config.Boot.prefers(l)
		m.tend(ctx, h)
	}
	return m.judge()
}

// chooseAnywhere picks the link for static addresses that name none: the first that has a carrier.
func (m *manager) chooseAnywhere(links []link) {
	if m.anywhere != 0 && byIndex(links, m.anywhere) != nil {
		return
	}
	m.anywhere = 0
	for _, l := range links {
		named := slices.ContainsFunc(m.config.Links, func(c LinkConfig) bool { return c.Device == l.name })
		if l.physical() && l.carrier && !named {
			m.anywhere = l.index
			return
		}
	}
}

// attempt says on the console what couldn't be done to a link, and returns whether it could. A link that
// has gone meanwhile is no news: the next step finds out.
func (m *manager) attempt(name, what string, err error) bool {
	if err != nil && !errors.Is(err, errNoLink) {
		m.console.remark("network: " + name + ": " + what + ": " + err.Error())
	}
	return err == nil
}

// learn takes what a router said about DNS.
func (m *manager) learn(ad advert) {
	h := m.ours[ad.index]
	if h == nil || !h.spec.auto6 {
		return
	}
	now := time.Now()
	h.dns.put(now, ad.lifetime, maxServers, ad.dns...)
	h.search.put(now, ad.lifetime, maxSearch, ad.search...)
}

// judge publishes what is, and returns after how long the same may be judged otherwise.
func (m *manager) judge() time.Duration {
	now := time.Now()
	views, problems := m.views(now)
	state := describe(m.config, views)
	s := situation{
		config: m.config, views: views, problems: problems, elapsed: now.Sub(m.start), usableFor: -1,
		deadline: m.options.Deadline, settle: m.options.Settle, grace: m.options.Grace,
		dns: len(state.DNS) > 0, others: m.others,
	}
	c := s.count()
	switch {
	case !c.v4 && !c.v6:
		m.usable = time.Time{}
	case m.usable.IsZero():
		m.usable = now
	}
	if !m.usable.IsZero() {
		s.usableFor = now.Sub(m.usable)
	}
	v := judge(s)
	if m.failed != nil {
		v = verdict{err: fault.New(fault.Broken, fault.Platform, "", "bring the network up: %w", m.failed)}
	}
	if v.ready && m.took == 0 {
		m.took = s.elapsed
	}
	state.Usable, state.Took, state.Waiting = v.ready, m.took, waiting(s)
	m.say(now, state, v)
	m.writeResolv(state)
	m.publish(state, v)
	wait := m.console.due(now)
	if v.again > s.elapsed && (wait == 0 || v.again-s.elapsed < wait) {
		wait = v.again - s.elapsed
	}
	return wait
}

// say tells the console what is waited for or, once the network can be used, what it is.
func (m *manager) say(now time.Time, s State, v verdict) {
	switch {
	case v.ready:
		m.console.say(now, "network: "+upLine(s), !m.up)
		m.up = true
	case s.Waiting != "":
		m.console.say(now, "network: "+s.Waiting, false)
	}
}
