package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/store"
)

const changeHeader = "" +
	"                        ---- ms, median ----   ------ total, ms ------  --- swap, ms --  - wait, ms -   CPU, ms\n" +
	"  files modules change      plan      the rest    least  median   most   median   most   median  most   median"

// times of one change.
type times struct {
	// plan ends when it is known what the change means; total when the command is done.
	plan, total time.Duration
	// swap is from the first directory that is replaced to the last, wait the longest that a lookup took meanwhile.
	swap, wait time.Duration
	// used is the processors' time.
	used time.Duration
}

// machine notes when what happens.
type machine struct {
	change.Machine
	planned time.Time
	watch   *watcher
}

func (m *machine) Examine(ctx context.Context, s change.Step) (change.Findings, error) {
	f, err := m.Machine.Examine(ctx, s)
	m.planned = time.Now()
	return f, err
}

// step sees the label of each operation of package live as it begins: lookups are watched from shortly before the first directory is
// replaced to shortly after the last.
func (m *machine) step(op string) error {
	switch {
	case strings.HasSuffix(op, ":beneath"), strings.HasSuffix(op, ":attach"):
		m.watch.begin()
	case strings.HasPrefix(op, "live-done"):
		m.watch.stop()
	}
	return nil
}

// extra has a version of the extra module, so that what is attached makes a root image that wasn't there before.
func (n *node) extra(ctx context.Context, version string) error {
	st, err := store.Open(n.state, store.Options{})
	if err != nil {
		return err
	}
	defer st.Close()
	return n.publishExtra(ctx, st, version)
}

// changes attaches and detaches the extra module so often, after once of each to warm up. The root image of each attachment is new;
// detaching leads back to the one that was booted.
func (n *node) changes(ctx context.Context, runs int) error {
	done := map[change.Kind][]times{}
	begun := time.Now().Unix() // a store that is there already has the root images of the last time
	for i := range runs + 1 {
		if err := n.extra(ctx, fmt.Sprintf("1.%d.%d", begun, i)); err != nil {
			return err
		}
		for _, kind := range []change.Kind{change.Attach, change.Detach} {
			t, err := n.change(ctx, kind)
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
			if i > 0 {
				done[kind] = append(done[kind], t)
			}
		}
	}
	for _, kind := range []change.Kind{change.Attach, change.Detach} {
		all := done[kind]
		plan, rest := each(all, func(t times) time.Duration { return t.plan }), each(all, func(t times) time.Duration { return t.total - t.plan })
		total, swap := each(all, func(t times) time.Duration { return t.total }), each(all, func(t times) time.Duration { return t.swap })
		wait, used := each(all, func(t times) time.Duration { return t.wait }), each(all, func(t times) time.Duration { return t.used })
		fmt.Printf("%7d %7d %-7s %8.1f      %8.1f  %7.1f %7.1f %6.1f   %6.2f %6.2f   %6.2f %5.2f %8.1f\n", n.files, n.modules, kind, median(plan), median(rest),
			total[0], median(total), total[len(total)-1], median(swap), swap[len(swap)-1], median(wait), wait[len(wait)-1], median(used))
	}
	return nil
}

// each returns one number of all changes, in milliseconds, sorted.
func each(all []times, of func(times) time.Duration) []float64 {
	list := make([]float64, len(all))
	for i, t := range all {
		list[i] = float64(of(t).Microseconds()) / 1000
	}
	slices.Sort(list)
	return list
}

func median(sorted []float64) float64 { return sorted[len(sorted)/2] }

// used is the time that this process has had of the processors, but for what it took to watch.
func used() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// change does what the command attach or detach does, and checks that it went live.
func (n *node) change(ctx context.Context, kind change.Kind) (times, error) {
	watch := newWatcher(n.root, n.paths)
	defer watch.stop()
	runtime.GC() // what is left of the last change isn't this one's
	var swapped time.Duration
	m := &machine{watch: watch}
	m.Swapped = func(r live.Result) { swapped = r.Swapped }
	usedBefore, begun := used(), time.Now()
	result, err := n.command(ctx, kind, m)
	ended, usedAfter := time.Now(), used()
	if err != nil {
		return times{}, err
	}
	if result.Outcome != change.WentLive {
		return times{}, fmt.Errorf("it is %s: %+v", result.Outcome, result.Plan)
	}
	_, err = os.Lstat(filepath.Join(n.root, pathOf(extraName, 50)))
	if (err == nil) != (kind == change.Attach) {
		return times{}, fmt.Errorf("the files aren't as they should be: %w", err)
	}
	return times{plan: m.planned.Sub(begun), total: ended.Sub(begun), swap: swapped, wait: watch.stop(), used: usedAfter - usedBefore - watch.used}, nil
}

func (n *node) command(ctx context.Context, kind change.Kind, m *machine) (*change.Result, error) {
	lock, err := reconcile.Lock(n.state)
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	st, err := store.Open(n.state, store.Options{})
	if err != nil {
		return nil, err
	}
	defer st.Close()
	if _, err := mount.Probe(st.ObjectsPath()); err != nil {
		return nil, err
	}
	r, err := n.reconciler(st)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	m.Place = live.Place{Root: n.root, RunDir: n.run, Images: st, UpperDir: n.made.Facts().UpperDir, Hook: m.step}
	m.Care = &change.Care{Store: st, Root: n.root, Run: n.run}
	m.Care.Manager.Run = n.run
	c := change.New(change.Config{
		Store: st, Reconciler: r, System: m, RunDir: n.run,
		Running: change.Running{Generation: n.running.Number, BootID: "bench", Live: func(g store.Generation) error {
			n.running = g
			return nil
		}},
	})
	if _, err := c.Recover(ctx); err != nil {
		return nil, err
	}
	return c.Do(ctx, change.Request{Kind: kind, Modules: []string{extraName}, AllowDowngrade: true})
}

// watcher looks up paths in a loop, and knows how long the longest lookup took.
type watcher struct {
	root    string
	paths   []string
	on, off chan struct{}
	stopped bool
	worst   chan time.Duration
	result  time.Duration
	used    time.Duration
	began   bool
}

func newWatcher(root string, paths []string) *watcher {
	w := &watcher{root: root, paths: paths, on: make(chan struct{}), off: make(chan struct{}), worst: make(chan time.Duration, 1)}
	go w.run()
	return w
}

func (w *watcher) run() {
	runtime.LockOSThread()
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &r)
	before := time.Duration(r.Utime.Nano() + r.Stime.Nano())
	<-w.on
	random := rand.New(rand.NewPCG(3, 4))
	var worst time.Duration
	var stat unix.Stat_t
	for {
		select {
		case <-w.off:
			var r unix.Rusage
			_ = unix.Getrusage(unix.RUSAGE_THREAD, &r)
			w.used = time.Duration(r.Utime.Nano()+r.Stime.Nano()) - before
			w.worst <- worst
			return
		default:
		}
		path := filepath.Join(w.root, w.paths[random.IntN(len(w.paths))])
		begun := time.Now()
		if unix.Lstat(path, &stat) != nil {
			worst = time.Hour // there was a moment in which it was missing
		}
		worst = max(worst, time.Since(begun))
	}
}

func (w *watcher) begin() {
	if !w.began {
		w.began = true
		close(w.on)
	}
}

// stop ends it, and returns the result.
func (w *watcher) stop() time.Duration {
	if !w.stopped {
		w.stopped = true
		w.begin()
		close(w.off)
		w.result = <-w.worst
	}
	return w.result
}
